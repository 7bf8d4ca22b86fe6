//! PQXDH (Signal, "The PQXDH Key Agreement Protocol" rev. 3), with the whole transcript in the KDF
//! (deviation D3).
//!
//! ```text
//! DH1 = DH(DIK_A, SPK_B)   DH2 = DH(EK_A, DIK_B)   DH3 = DH(EK_A, SPK_B)   DH4 = DH(EK_A, OPK_B) if present
//! (ct, SS) = ML-KEM-768.Encaps(PQK_B)
//! th  = H(L"pqxdh-transcript" ‖ lp(DC_A) ‖ lp(DC_B) ‖ EK_A ‖ u64 born_ms ‖ u32 spk_id ‖ SPK_B
//!         ‖ u32 opk_id (ffffffff none) ‖ lp(OPK_B or empty) ‖ u32 pq_id ‖ lp(PQK_B) ‖ lp(ct))
//! okm = HKDF(salt = 00×32, ikm = ff×32 ‖ DH1 ‖ DH2 ‖ DH3 ‖ [DH4] ‖ SS, info = L"pqxdh" ‖ th, 48)
//! RK0 = okm[0..32]   sid = okm[32..48]
//! ```
//!
//! Hashing ct and the public keys closes the re-encapsulation and key confusion attacks that the
//! formal analysis of PQXDH found (Bhargavan et al., USENIX Security 2024).

use zeroize::Zeroizing;

use super::bundle::{Bundle, NO_ID};
use super::dh::DhPair;
use super::envelope::Prekey;
use super::error::{Error, SealError};
use super::identity::Identity;
use super::kdf;
use super::kem;
use super::labels;
use super::name::SessionId;
use super::prekeys::{Found, Named};
use super::rng::Rng;
use super::secret::Secret;
use super::wire::Put;

/// What both sides derive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    pub(crate) root: Secret<32>,
    pub(crate) sid: SessionId,
}

/// The public side of a handshake: everything that `th` covers.
struct Transcript<'a> {
    cert_a: &'a [u8],
    cert_b: &'a [u8],
    ek: &'a [u8; 32],
    born_ms: u64,
    named: Named,
    spk: &'a [u8],
    opk: Option<&'a [u8]>,
    pqk: &'a [u8],
    ciphertext: &'a [u8],
}

impl Transcript<'_> {
    fn hash(&self) -> [u8; 32] {
        let mut t = labels::PQXDH_TRANSCRIPT.bytes().to_vec();
        t.put_lp(self.cert_a).put_lp(self.cert_b).put(self.ek).put_u64(self.born_ms);
        t.put_u32(self.named.spk).put(self.spk);
        t.put_u32(self.named.opk.unwrap_or(NO_ID)).put_lp(self.opk.unwrap_or_default());
        t.put_u32(self.named.pqk).put_lp(self.pqk).put_lp(self.ciphertext);
        kdf::hash(&[&t])
    }
}

fn derive(th: &[u8; 32], dhs: [Secret<32>; 3], dh4: Option<Secret<32>>, ss: &Secret<32>) -> Agreed {
    // 32 bytes of ff: the key material can never look like an encoded curve point (PQXDH §2.2).
    let mut ikm = Zeroizing::new(Vec::with_capacity(6 * 32));
    ikm.put(&[0xff; 32]);
    for dh in dhs.iter().chain(&dh4).chain([ss]) {
        ikm.put(dh.expose());
    }
    let okm: Secret<48> = kdf::hkdf(&[0; 32], &ikm, &[labels::PQXDH.bytes(), th]);
    let mut bytes = okm.expose().iter();
    let (root, sid) = (Secret::cut(&mut bytes), Secret::cut(&mut bytes));
    Agreed { root, sid: SessionId(*sid.expose()) }
}

/// The initiator's side: what was agreed, and the PREKEY bytes that tell the other side.
pub(crate) fn initiate(
    me: &Identity,
    bundle: &Bundle,
    born_ms: u64,
    rng: &mut dyn Rng,
) -> Result<(Agreed, Vec<u8>), SealError> {
    let ek = DhPair::draw(rng)?;
    let theirs = |public: &[u8]| public.try_into().map_err(|_| Error::Syntax);
    let agree = || -> Result<_, Error> {
        let spk = theirs(&bundle.spk().public)?;
        let dh4 = bundle.opk().map(|opk| ek.agree(&theirs(&opk.public)?)).transpose()?;
        Ok(([me.dik().agree(&spk)?, ek.agree(bundle.cert().dik())?, ek.agree(&spk)?], dh4))
    };
    let (dhs, dh4) = agree().map_err(SealError::Bundle)?;
    let pqk = bundle.pqk().public.as_slice().try_into().map_err(|_| SealError::Bundle(Error::Syntax))?;
    let (ciphertext, ss) = kem::encapsulate(pqk, rng)?;
    let named = Named { spk: bundle.spk().id, opk: bundle.opk().map(|opk| opk.id), pqk: bundle.pqk().id };
    let transcript = Transcript {
        cert_a: me.cert().bytes(),
        cert_b: bundle.cert().bytes(),
        ek: ek.public(),
        born_ms,
        named,
        spk: &bundle.spk().public,
        opk: bundle.opk().map(|opk| opk.public.as_slice()),
        pqk,
        ciphertext: &ciphertext,
    };
    let agreed = derive(&transcript.hash(), dhs, dh4, &ss);
    let prekey = Prekey {
        sid: agreed.sid,
        ek: *ek.public(),
        named,
        born_ms,
        ciphertext: ciphertext.as_slice().try_into().map_err(|_| SealError::Bundle(Error::Handshake))?,
        cert: me.cert().bytes(),
    };
    let prefix = prekey.write();
    Ok((agreed, prefix))
}

/// The recipient's side. Who the certificate belongs to was checked before.
///
/// # Errors
/// [`Error::LowOrder`]; [`Error::Handshake`] if another session comes out than the header names;
/// [`Error::NoPrekey`] if the certificate the prekeys were signed under is gone.
pub(crate) fn accept(me: &Identity, prekey: &Prekey<'_>, dik_a: &[u8; 32], found: &Found) -> Result<Agreed, Error> {
    let cert_b = me.cert_of(&found.dc).ok_or(Error::NoPrekey)?;
    let dhs = [found.spk.agree(dik_a)?, me.dik().agree(&prekey.ek)?, found.spk.agree(&prekey.ek)?];
    let dh4 = found.opk.as_ref().map(|opk| opk.agree(&prekey.ek)).transpose()?;
    let ss = kem::decapsulate(&found.pqk, prekey.ciphertext);
    let pqk = kem::public(&found.pqk);
    let transcript = Transcript {
        cert_a: prekey.cert,
        cert_b: cert_b.bytes(),
        ek: &prekey.ek,
        born_ms: prekey.born_ms,
        named: prekey.named,
        spk: found.spk.public(),
        opk: found.opk.as_ref().map(|opk| &opk.public()[..]),
        pqk: &pqk,
        ciphertext: prekey.ciphertext,
    };
    let agreed = derive(&transcript.hash(), dhs, dh4, &ss);
    if agreed.sid == prekey.sid { Ok(agreed) } else { Err(Error::Handshake) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::armour::hex;
    use crate::e2e::envelope::Slot;
    use crate::e2e::testing::{Script, alice, bob, bundle_of};
    use crate::e2e::time::Now;

    /// The handshake of the worked example: EK 15×32, Encaps m 16×32, born_ms 1800000000000.
    fn handshake() -> (Agreed, Vec<u8>) {
        let (raw, contact) = bundle_of(&bob());
        let bundle = Bundle::verify(&raw, &contact, Now::from_secs(1_800_000_000)).unwrap();
        let mut rng = Script::new(&[[0x15; 32], [0x16; 32]]);
        initiate(&alice().me, &bundle, 1_800_000_000_000, &mut rng).unwrap()
    }

    #[test]
    fn matches_the_worked_example() {
        let (agreed, prefix) = handshake();
        let root = hex(agreed.root.expose());
        assert!(root.starts_with("fc8e210d") && root.ends_with("648b1a"), "{root}");
        assert_eq!(agreed.sid.to_string(), "44e169e7828bcf849add3285e3d257f3");
        assert_eq!(prefix.len(), 1160 + 200);

        let slot = [&prefix[..], &[1, 2], &agreed.sid.0, &[0; 56], &[0; 112]].concat();
        let slot = Slot::parse(&slot).unwrap();
        let prekey = slot.prekey.unwrap();
        let (a, b) = (alice(), bob());
        let found = b.prekeys.find(prekey.named, Now::from_secs(1_800_000_000)).unwrap();
        assert_eq!(accept(&b.me, &prekey, a.me.cert().dik(), &found), Ok(agreed));

        let transcript = Transcript {
            cert_a: prekey.cert,
            cert_b: b.me.cert().bytes(),
            ek: &prekey.ek,
            born_ms: prekey.born_ms,
            named: prekey.named,
            spk: found.spk.public(),
            opk: found.opk.as_ref().map(|opk| &opk.public()[..]),
            pqk: &kem::public(&found.pqk),
            ciphertext: prekey.ciphertext,
        };
        assert_eq!(hex(&transcript.hash()), "fd5abc8d3f5a955aad14d08684158130a5a4e2db4e29995c1b5eaaf0492671c3");
    }

    #[test]
    fn the_recipient_refuses_points_of_small_order_and_another_session() {
        let (agreed, prefix) = handshake();
        let b = bob();
        let slot = [&prefix[..], &[1, 2], &agreed.sid.0, &[0; 56], &[0; 112]].concat();
        let prekey = Slot::parse(&slot).unwrap().prekey.unwrap();
        let found = b.prekeys.find(prekey.named, Now::from_secs(1_800_000_000)).unwrap();
        let dik = *alice().me.cert().dik();
        for u in crate::e2e::testing::small_order_points() {
            assert_eq!(accept(&b.me, &Prekey { ek: u, ..prekey.clone() }, &dik, &found), Err(Error::LowOrder));
            assert_eq!(accept(&b.me, &prekey, &u, &found), Err(Error::LowOrder));
        }
        let wrong = [
            Prekey { sid: SessionId([0; 16]), ..prekey.clone() },
            Prekey { born_ms: 1, ..prekey.clone() },
            Prekey { ciphertext: &[0; 1088], ..prekey.clone() },
            Prekey { ek: [9; 32], ..prekey.clone() },
            Prekey { cert: b.me.cert().bytes(), ..prekey.clone() },
        ];
        for prekey in &wrong {
            assert_eq!(accept(&b.me, prekey, &dik, &found), Err(Error::Handshake));
        }
    }
}
