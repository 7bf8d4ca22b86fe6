use super::*;
use proptest::prelude::*;

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[1, kind], [7; 16].as_slice(), body].concat()
}

fn parse(kind: u8, body: &[u8]) -> Result<KeyRecord, RecordFault> {
    KeyUpload::parse(&record(kind, body)).map(|upload| {
        assert_eq!(upload.device, DeviceName([7; 16]));
        upload.record
    })
}

/// A certificate's form, with a name of so many bytes.
fn a_certificate(name: usize) -> Vec<u8> {
    [vec![1, 0x10, name as u8], vec![b'a'; name], vec![0; 192]].concat()
}

fn a_list(name: usize, devices: usize) -> Vec<u8> {
    let head = [vec![1, 0x11, name as u8], vec![b'a'; name], vec![0; 36], vec![devices as u8]];
    [head.concat(), vec![0; devices * 32 + 64]].concat()
}

#[test]
fn lengths_are_those_of_the_structures() {
    assert_eq!((CERTIFICATE_LEN, DEVICE_LIST_LEN), (195, 104));
    assert_eq!((DH_KEY_LEN, POST_QUANTUM_KEY_LEN), (108, 1260));
    assert_eq!(a_certificate(5).len(), 200, "as for alice");
    let words = [
        (RecordFault::Certificate, CERTIFICATE_LEN),
        (RecordFault::DeviceList, DEVICE_LIST_LEN),
        (RecordFault::DhKey, DH_KEY_LEN),
        (RecordFault::PostQuantumKey, POST_QUANTUM_KEY_LEN),
    ];
    for (fault, length) in words {
        assert!(fault.to_string().contains(&length.to_string()), "{fault}");
    }
}

#[test]
fn each_kind_is_read() {
    assert_eq!(parse(0x10, &[]), Ok(KeyRecord::Forget));
    for name in [1, 5, 32] {
        assert_eq!(parse(0x10, &a_certificate(name)), Ok(KeyRecord::Certificate(a_certificate(name))));
        for devices in [1, 16] {
            let list = a_list(name, devices);
            assert_eq!(parse(0x11, &list), Ok(KeyRecord::DeviceList(list)));
        }
    }
    let key = |id: u8, len: usize| [vec![0, 0, 1, id], vec![9; len - 4]].concat();
    let read = |id: u8, len: usize| PrekeyBytes { id: 256 + u32::from(id), bytes: key(id, len) };
    assert_eq!(parse(0x12, &key(1, 108)), Ok(KeyRecord::SignedPrekey(read(1, 108))));
    assert_eq!(parse(0x15, &key(2, 1260)), Ok(KeyRecord::LastResort(read(2, 1260))));
    let two = [key(3, 108), key(4, 108)].concat();
    assert_eq!(parse(0x13, &two), Ok(KeyRecord::OneTime(PoolKind::Dh, vec![read(3, 108), read(4, 108)])));
    assert_eq!(parse(0x14, &key(5, 1260)), Ok(KeyRecord::OneTime(PoolKind::PostQuantum, vec![read(5, 1260)])));
    for (kind, len, most) in [(0x13, DH_KEY_LEN, DH_POOL), (0x14, POST_QUANTUM_KEY_LEN, POST_QUANTUM_POOL)] {
        assert!(parse(kind, &vec![0; len * most]).is_ok());
        assert_eq!(parse(kind, &vec![0; len * (most + 1)]), Err(RecordFault::TooMany(most)));
    }
}

#[test]
fn other_lengths_are_refused() {
    for name in [0, 33, 255] {
        assert_eq!(parse(0x10, &a_certificate(name)), Err(RecordFault::Certificate), "{name}");
        assert_eq!(parse(0x11, &a_list(name, 1)), Err(RecordFault::DeviceList), "{name}");
    }
    for devices in [0, 17] {
        assert_eq!(parse(0x11, &a_list(5, devices)), Err(RecordFault::DeviceList), "{devices}");
    }
    let whole = [
        (0x10, a_certificate(5), RecordFault::Certificate),
        (0x11, a_list(5, 2), RecordFault::DeviceList),
        (0x12, vec![0; 108], RecordFault::DhKey),
        (0x13, vec![0; 216], RecordFault::DhKey),
        (0x14, vec![0; 2520], RecordFault::PostQuantumKey),
        (0x15, vec![0; 1260], RecordFault::PostQuantumKey),
    ];
    for (kind, body, fault) in whole {
        assert!(parse(kind, &body).is_ok());
        assert_eq!(parse(kind, &body[1..]), Err(fault), "{kind:x}");
        assert_eq!(parse(kind, &[body, vec![0]].concat()), Err(fault), "{kind:x}");
        if kind != 0x10 {
            assert_eq!(parse(kind, &[]), Err(fault), "{kind:x}");
        }
    }
    assert_eq!(parse(0x12, &[0; 216]), Err(RecordFault::DhKey), "one key, not two");
    for bytes in [vec![], vec![1], vec![1, 0x10], vec![1; 17], record(0x0f, &[0; 108]), record(0x16, &[0; 108])] {
        assert_eq!(KeyUpload::parse(&bytes), Err(RecordFault::Head), "{bytes:?}");
    }
    assert_eq!(KeyUpload::parse(&[&[2], &record(0x10, &[])[1..]].concat()), Err(RecordFault::Head), "version 2");
}

#[test]
fn devices_are_hexadecimal() {
    let name = DeviceName([0xab; 16]);
    assert_eq!(name.to_string(), "ab".repeat(16));
    assert_eq!(DeviceName::parse(&"aB".repeat(16)), Some(name));
    for bad in ["", "ab", &"ab".repeat(17), &"g".repeat(32), &"é".repeat(16), &"+1".repeat(16)] {
        assert_eq!(DeviceName::parse(bad), None, "{bad:?}");
    }
}

/// Bytes that often come close to a record.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        (1usize..33).prop_map(a_certificate),
        (1usize..33, 1usize..17).prop_map(|(name, devices)| a_list(name, devices)),
        (1usize..4, any::<u8>()).prop_map(|(keys, byte)| vec![byte; keys * DH_KEY_LEN]),
        (1usize..4, any::<u8>()).prop_map(|(keys, byte)| vec![byte; keys * POST_QUANTUM_KEY_LEN]),
    ];
    (0x10u8..0x17, body).prop_map(|(kind, body)| record(kind, &body))
}

proptest! {
    /// What reads as a record is written as the same bytes, and nothing panics.
    #[test]
    fn writing_gives_the_same_bytes(bytes in bytes()) {
        if let Ok(upload) = KeyUpload::parse(&bytes) {
            prop_assert_eq!(upload.to_bytes(), bytes);
        }
    }
}
