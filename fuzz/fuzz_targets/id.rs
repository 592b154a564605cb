//! Ids can be created from any bytes. Every id is text and then zeros, 20 bytes in all, and survives every
//! conversion unchanged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shmem_providers::ShMemId;

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let from_text = ShMemId::from_string(&text);
    check(from_text);
    let kept = text.len() < 20 && !text.contains('\0');
    assert!(kept || from_text.as_str().starts_with('?'));
    assert!(!kept || from_text.as_str() == text);

    if let Some(number) = data.first_chunk() {
        let number = i32::from_le_bytes(*number);
        let id = ShMemId::from_int(number);
        check(id);
        assert_eq!(id.as_int(), Some(number));
    }

    let parsed = ShMemId::try_from_slice(data);
    match data.first_chunk() {
        None => assert!(parsed.is_err()),
        Some(array) => {
            let id = ShMemId::from_array(array);
            check(id);
            match parsed {
                Ok(parsed) => assert_eq!(parsed, id),
                Err(_) => assert!(id.as_str().starts_with('?')),
            }
        }
    }
});

/// Checks what is true for every id.
fn check(id: ShMemId) {
    let bytes = id.as_array();
    let end = bytes.iter().position(|&byte| byte == 0);
    let end = end.expect("an id ends with a zero");
    assert!(bytes[end..].iter().all(|&byte| byte == 0));
    assert_eq!(id.as_str().as_bytes(), &bytes[..end]);
    assert_eq!(id.is_empty(), id.as_str().is_empty());
    assert_eq!(id.to_string(), id.as_str());
    assert_eq!(format!("{id:?}"), format!("{:?}", id.as_str()));

    assert_eq!(ShMemId::from_array(bytes), id);
    assert_eq!(ShMemId::from(<[u8; 20]>::from(id)), id);
    assert_eq!(ShMemId::try_from_slice(bytes).ok(), Some(id));
    assert_eq!(ShMemId::from_string(id.as_str()), id);
    if let Some(number) = id.as_int() {
        assert_eq!(ShMemId::from_int(number), id);
    }
}
