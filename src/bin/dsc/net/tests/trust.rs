//! Which certificates are believed.

use super::*;
use crate::error::{Exit, Failure};

fn hello(peer: &mut Peer) {
    // A client that refuses the certificate hears nothing of this.
    let _ = peer.try_say(HELLO.as_bytes());
    peer.wait_for_end();
}

fn open(fake: &Fake, trust: &Trust) -> Result<Opened, OpenError> {
    Connection::open(&fake.endpoint, trust, PATIENCE)
}

/// Refused for its certificate, and the message.
fn refusal(result: Result<Opened, OpenError>) -> (TrustError, String) {
    match result {
        Err(OpenError::Trust(error)) => {
            let text = error.to_string();
            (error, text)
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn exit_of(error: TrustError) -> (Exit, String) {
    let failure = Failure::from(OpenError::Trust(error));
    (failure.exit, failure.hint.unwrap_or_default())
}

#[test]
fn a_server_that_nobody_vouches_for_is_trusted_on_first_use_and_then_pinned() {
    let (home, identity) = (Home::new(), Identity::own());
    let fake = Fake::serve(&identity, 2, hello);
    let first = open(&fake, &home.trust()).unwrap().first_use.expect("a first use");
    assert_eq!((first.fingerprint, &first.endpoint), (identity.fingerprint(), &fake.endpoint));
    let shown = first.to_string();
    assert!(shown.contains(&identity.fingerprint().to_string()), "{shown}");
    assert_eq!(home.known(), [format!("{} {}", fake.endpoint, identity.fingerprint())]);
    assert_eq!(open(&fake, &home.trust()).unwrap().first_use, None);
    fake.finish();
}

#[test]
fn a_changed_certificate_stops_with_both_fingerprints_and_what_to_do() {
    let (home, old, new) = (Home::new(), Identity::own(), Identity::own());
    let fake = Fake::serve(&new, 4, hello);
    let trust = home.trust();
    std::fs::create_dir(home.path("home")).unwrap();
    std::fs::write(&trust.known, format!("# mine\n\n{} {}\n", fake.endpoint, old.fingerprint())).unwrap();
    let (error, text) = refusal(open(&fake, &trust));
    for fingerprint in [old.fingerprint(), new.fingerprint()] {
        assert!(text.contains(&fingerprint.to_string()), "{text}");
    }
    let (exit, hint) = exit_of(error);
    assert_eq!(exit, Exit::IdentityChanged);
    assert!(hint.contains(&format!("--pin {}", new.fingerprint())) && hint.contains("certificate SHA-256"), "{hint}");
    assert!(hint.contains(&fake.endpoint.to_string()), "{hint}");
    // Nothing was learned from it.
    assert_eq!(home.known(), [String::new(), format!("{} {}", fake.endpoint, old.fingerprint())]);
    refusal(open(&fake, &trust));

    // The way out: the new one by hand.
    assert_eq!(open(&fake, &home.with_pin(new.fingerprint())).unwrap().first_use, None);
    open(&fake, &trust).unwrap();
    let text = std::fs::read_to_string(&trust.known).unwrap();
    assert_eq!(text, format!("# mine\n\n{} {}\n", fake.endpoint, new.fingerprint()));
    fake.finish();
}

#[test]
fn a_demanded_certificate_must_be_that_one() {
    let (home, identity, other) = (Home::new(), Identity::own(), Identity::own());
    let fake = Fake::serve(&identity, 2, hello);
    let (error, text) = refusal(open(&fake, &home.with_pin(other.fingerprint())));
    assert!(text.contains(&identity.fingerprint().to_string()) && text.contains(&other.fingerprint().to_string()));
    assert_eq!(exit_of(error).0, Exit::IdentityChanged);
    assert!(home.known().is_empty());
    assert_eq!(open(&fake, &home.with_pin(identity.fingerprint())).unwrap().first_use, None);
    assert_eq!(home.known(), [format!("{} {}", fake.endpoint, identity.fingerprint())]);
    fake.finish();
}

#[test]
fn a_server_that_was_vouched_for_never_falls_back_to_first_use() {
    let (home, authority) = (Home::new(), Authority::new("ours"));
    let good = authority.sign(params(&["127.0.0.1"]));
    let own = Identity::own();
    let fake = Fake::serve(&good, 3, hello);
    let trust = home.with_ca(&authority.pem);
    for _ in 0..2 {
        assert_eq!(open(&fake, &trust).unwrap().first_use, None);
    }
    assert_eq!(home.known(), [format!("{} roots", fake.endpoint)]);
    // The machine's own roots do not know this authority.
    let (error, _) = refusal(open(&fake, &home.trust()));
    assert!(matches!(error, TrustError::NoLongerVouched { .. }), "{error:?}");
    assert_eq!(exit_of(error).0, Exit::IdentityChanged);
    let endpoint = fake.endpoint.clone();
    fake.finish();

    // Somebody else at the same place.
    let fake = Fake::serve(&own, 3, hello);
    std::fs::write(&trust.known, format!("{} roots\n", fake.endpoint)).unwrap();
    for trust in [&trust, &home.trust()] {
        let (error, text) = refusal(open(&fake, trust));
        assert!(
            matches!(error, TrustError::NoLongerVouched { .. }) && text.contains("no certificate authority"),
            "{text}"
        );
    }
    assert_eq!(home.known(), [format!("{} roots", fake.endpoint)]);
    assert_ne!(endpoint, fake.endpoint);
    // By hand it goes, and replaces what was known.
    open(&fake, &home.with_pin(own.fingerprint())).unwrap();
    assert_eq!(home.known(), [format!("{} {}", fake.endpoint, own.fingerprint())]);
    fake.finish();
}

#[test]
fn an_authority_named_by_hand_must_vouch() {
    let authority = Authority::new("ours");
    let mut late = params(&["127.0.0.1"]);
    late.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let mut early = params(&["127.0.0.1"]);
    early.not_before = rcgen::date_time_ymd(4000, 1, 1);
    for (identity, why) in [
        (Identity::own(), "no certificate authority that is trusted here has signed it"),
        (
            Authority::new("theirs").sign(params(&["127.0.0.1"])),
            "no certificate authority that is trusted here has signed it",
        ),
        (
            Authority::new("ours").sign(params(&["127.0.0.1"])),
            "its signature is not that of the authority that it names",
        ),
        (authority.sign(params(&["example.org"])), "it is for another name"),
        (authority.sign(late), "it has expired"),
        (authority.sign(early), "it is not valid yet; is the clock right?"),
    ] {
        let home = Home::new();
        let fake = Fake::serve(&identity, 1, hello);
        let (error, text) = refusal(open(&fake, &home.with_ca(&authority.pem)));
        assert!(text.ends_with(why), "{text}");
        assert!(matches!(error, TrustError::NotByCa { .. }));
        assert_eq!(exit_of(error).0, Exit::IdentityChanged);
        assert!(home.known().is_empty());
        fake.finish();
    }
}

#[test]
fn an_authority_whose_own_time_is_over_vouches_for_nothing() {
    let mut old = params(&[]);
    old.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let authority = Authority::with("old", old);
    let home = Home::new();
    let fake = Fake::serve(&authority.sign(params(&["127.0.0.1"])), 2, hello);
    let (_, text) = refusal(open(&fake, &home.with_ca(&authority.pem)));
    assert!(text.ends_with("every certificate in that file has expired"), "{text}");
    // Beside one that is current it is passed over.
    let (_, text) = refusal(open(&fake, &home.with_ca(&format!("{}{}", authority.pem, Authority::new("new").pem))));
    assert!(text.ends_with("no certificate authority that is trusted here has signed it"), "{text}");
    fake.finish();
}

#[test]
fn the_servers_own_certificate_may_be_named_as_its_authority() {
    // As `openssl req -x509` makes it: marked as an authority, which no path may end in.
    let mut own = params(&["elsewhere"]);
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = own.self_signed(&key).unwrap();
    let identity = Identity { chain: vec![certificate.der().clone()], key: key.serialize_der() };
    let home = Home::new();
    let fake = Fake::serve(&identity, 1, hello);
    open(&fake, &home.with_ca(&certificate.pem())).unwrap();
    fake.finish();
}

#[test]
fn unusable_files_are_told_before_anything_is_sent() {
    let home = Home::new();
    let nowhere = Endpoint::parse("127.0.0.1:1").unwrap();
    for (content, what) in [
        ("", "has no certificate in it"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "has something in it that is no certificate",
        ),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", "damaged PEM"),
    ] {
        let (error, text) = refusal(Connection::open(&nowhere, &home.with_ca(content), PATIENCE));
        assert!(text.contains(what), "{text}");
        assert_eq!(exit_of(error).0, Exit::Failed);
    }
    let missing = Trust { ca: Some(home.path("missing")), ..home.trust() };
    let (_, text) = refusal(Connection::open(&nowhere, &missing, PATIENCE));
    assert!(text.contains("cannot be read"), "{text}");

    std::fs::create_dir(home.path("home")).unwrap();
    std::fs::write(home.trust().known, "localhost:1 sha256:12\n127.0.0.1:1 sha256:12\n").unwrap();
    let (error, text) = refusal(Connection::open(&nowhere, &home.trust(), PATIENCE));
    assert!(text.contains("line 2"), "{text}");
    assert_eq!(exit_of(error).0, Exit::Failed);
}

/// A thief has the server's certificate, which is public, but not its key.
#[test]
fn a_certificate_without_its_key_is_worth_nothing() {
    let identity = Identity::own();
    let thief = Identity { key: Identity::own().key, ..identity.clone() };
    for versions in [&[&rustls::version::TLS13], &[&rustls::version::TLS12]] {
        let home = Home::new();
        let fake = Fake::serve_versions(&thief, versions, 2, hello);
        for trust in [home.with_pin(identity.fingerprint()), home.trust()] {
            match open(&fake, &trust) {
                Err(OpenError::Failed { why, .. }) => assert!(why.contains("BadSignature"), "{why}"),
                other => panic!("{other:?}"),
            }
        }
        assert!(home.known().is_empty());
        fake.finish();
    }
}

#[test]
fn only_a_downstream_server_is_remembered() {
    let home = Home::new();
    let fake = Fake::serve(&Identity::own(), 1, |peer| {
        peer.say("220 mail.example ESMTP\r\n");
        peer.wait_for_end();
    });
    assert!(matches!(open(&fake, &home.trust()), Err(OpenError::NotDownStream { .. })));
    assert!(home.known().is_empty());
    fake.finish();
}

#[test]
fn another_process_may_have_met_the_server_meanwhile() {
    let (home, identity, other) = (Home::new(), Identity::own(), Identity::own());
    let known = home.trust().known;
    std::fs::create_dir(home.path("home")).unwrap();
    let noted = std::sync::Mutex::new(vec![
        "# nothing\n".to_owned(),
        format!("PLACE {}\n", identity.fingerprint()),
        format!("PLACE {}\n", other.fingerprint()),
        "PLACE roots\n".to_owned(),
    ]);
    noted.lock().unwrap().reverse();
    let place = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let (known_there, place_there) = (known.clone(), std::sync::Arc::clone(&place));
    // The handshake is over when this runs, and the pin is not written yet.
    let fake = Fake::serve(&identity, 4, move |peer| {
        let StreamOwned { conn, sock } = peer.stream.get_mut();
        conn.complete_io(sock).unwrap();
        let text = noted.lock().unwrap().pop().unwrap();
        std::fs::write(&known_there, text.replace("PLACE", place_there.get().unwrap())).unwrap();
        hello(peer);
    });
    place.set(fake.endpoint.to_string()).unwrap();
    let fresh = || {
        let _ = std::fs::remove_file(&known);
        open(&fake, &home.trust())
    };
    assert!(fresh().unwrap().first_use.is_some());
    assert!(fresh().unwrap().first_use.is_some(), "the same certificate was met twice at once");
    let (error, _) = refusal(fresh());
    assert!(matches!(error, TrustError::Changed { .. }), "{error:?}");
    let (error, _) = refusal(fresh());
    assert!(matches!(error, TrustError::NoLongerVouched { .. }), "{error:?}");
    assert_eq!(home.known(), [format!("{} roots", fake.endpoint)]);
    fake.finish();
}

#[test]
fn fingerprints_in_every_form() {
    let hex = "0123456789abcdef".repeat(4);
    let colons = hex
        .to_uppercase()
        .as_bytes()
        .chunks(2)
        .map(|two| std::str::from_utf8(two).unwrap())
        .collect::<Vec<_>>()
        .join(":");
    let read = Fingerprint::parse(&hex).unwrap();
    assert_eq!(read.to_string(), format!("sha256:{hex}"));
    for form in [read.to_string(), format!("SHA256:{hex}"), colons.clone(), format!("sha256:{colons}")] {
        assert_eq!(Fingerprint::parse(&form), Some(read), "{form}");
    }
    for bad in [
        "",
        "sha256:",
        &hex[1..],
        &format!("{hex}0"),
        &hex.replace('0', "g"),
        &format!("sha1:{hex}"),
        &colons.replacen(':', "0", 1),
        &"é".repeat(32),
    ] {
        assert_eq!(Fingerprint::parse(bad), None, "{bad}");
    }
}
