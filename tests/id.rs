//! Ids from any input: the functions are total, and an id opens no object by mistake.

use proptest::prelude::*;
use shmem_providers::{Error, IdKind, ShMemDescription, ShMemId};

/// Checks what holds for every id, whatever it was created from.
fn assert_is_an_id(id: ShMemId) {
    let text = id.as_str();
    assert!(text.len() <= 19);
    assert_eq!(id.len(), 20);
    assert_eq!(&id[..text.len()], text.as_bytes());
    assert!(id[text.len()..].iter().all(|&byte| byte == 0));
    assert_eq!(id.is_empty(), text.is_empty());
    assert_eq!(id.to_string(), text);
    assert_eq!(format!("{id:?}"), format!("{text:?}"));
    assert_eq!(ShMemId::from_array(id.as_array()), id);
    assert_eq!(ShMemId::from_string(text), id);
    assert_eq!(ShMemId::from(<[u8; 20]>::from(id)), id);
    assert_eq!(ShMemId::try_from_slice(&id), Ok(id));
    if let Some(number) = id.as_int() {
        assert_eq!(number.to_string(), text);
    }
}

proptest! {
    #[test]
    fn any_array_makes_an_id(array: [u8; 20]) {
        assert_is_an_id(ShMemId::from_array(&array));
    }

    #[test]
    fn any_slice_makes_an_id_or_an_error(slice: Vec<u8>) {
        match ShMemId::try_from_slice(&slice) {
            Ok(id) | Err(Error::InvalidId { id, .. }) => assert_is_an_id(id),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn any_string_makes_an_id(text: String) {
        let id = ShMemId::from_string(&text);
        assert_is_an_id(id);
        if text.len() <= 19 && !text.contains('\0') {
            assert_eq!(id.as_str(), text);
        } else {
            assert!(id.as_str().starts_with('?'));
        }
        assert_eq!(ShMemDescription::from_string_and_size(&text, 5).id, id);
    }

    #[test]
    fn a_text_in_an_array_is_the_id(text in "[!-~]{0,19}", garbage: [u8; 20]) {
        let mut array = garbage;
        array[..text.len()].copy_from_slice(text.as_bytes());
        array[text.len()] = 0;
        // Bytes behind the terminating zero, which C programs may leave, make no difference.
        assert_eq!(ShMemId::from_array(&array), ShMemId::from_string(&text));
    }

    #[test]
    fn numbers_come_back(number: i32) {
        let id = ShMemId::from_int(number);
        assert_is_an_id(id);
        assert_eq!(id.as_int(), Some(number));
    }
}

#[test]
fn invalid_texts_make_ids_that_name_the_reason() {
    assert_eq!(
        ShMemId::from_string("12345678901234567890").as_str(),
        "?too-long"
    );
    assert_eq!(
        ShMemId::from_string("\u{1F980}\u{1F980}\u{1F980}\u{1F980}\u{1F980}").as_str(),
        "?too-long"
    );
    assert_eq!(ShMemId::from_string("a\0b").as_str(), "?contains-nul");
    assert_eq!(ShMemId::from_array(&[b'a'; 20]).as_str(), "?not-terminated");
    assert_eq!(
        ShMemId::from_array(
            &[[0xff; 10], [0; 10]]
                .concat()
                .try_into()
                .unwrap_or_default()
        )
        .as_str(),
        "?not-utf-8"
    );
    assert!(ShMemId::try_from_slice(&[0; 19]).is_err());
    assert!(ShMemId::try_from_slice(&[]).is_err());
    assert_eq!(ShMemId::try_from_slice(&[0; 36]), Ok(ShMemId::default()));
    assert!(ShMemId::default().is_empty());
}

#[test]
fn numbers_are_only_what_from_int_makes() {
    for text in [
        "",
        "-",
        "+1",
        "01",
        "00",
        "-0",
        " 1",
        "1 ",
        "1e3",
        "2147483648",
        "-2147483649",
        "١",
    ] {
        assert_eq!(ShMemId::from_string(text).as_int(), None, "{text:?}");
    }
    assert_eq!(ShMemId::from_string("-2147483648").as_int(), Some(i32::MIN));
}

#[cfg(feature = "serde")]
mod serialised {
    use super::*;

    #[test]
    fn an_id_is_20_raw_bytes() -> Result<(), postcard::Error> {
        let id = ShMemId::from_string("/pictures");
        let mut buffer = [0xee; 64];
        let bytes = postcard::to_slice(&id, &mut buffer)?;
        assert_eq!(*bytes, *id.as_array());
        assert_eq!(postcard::from_bytes::<ShMemId>(bytes)?, id);
        Ok(())
    }

    #[test]
    fn a_description_comes_back() -> Result<(), postcard::Error> {
        let description = ShMemDescription::from_string_and_size("123", 65536);
        let mut buffer = [0; 64];
        let bytes = postcard::to_slice(&description, &mut buffer)?;
        assert_eq!(
            postcard::from_bytes::<ShMemDescription>(bytes)?,
            description
        );
        Ok(())
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            if let Ok(id) = postcard::from_bytes::<ShMemId>(&bytes) {
                assert_is_an_id(id);
            }
            if let Ok(description) = postcard::from_bytes::<ShMemDescription>(&bytes) {
                assert_is_an_id(description.id);
            }
        }
    }
}

#[cfg(target_os = "linux")]
mod opened {
    use super::*;
    use shmem_providers::{
        MemfdShMemProvider, MmapShMemProvider, ShMemProvider, StdShMemProvider, UnixShMemProvider,
    };

    /// Texts that look as if they could be opened.
    fn shaped() -> impl Strategy<Value = String> {
        prop_oneof![
            "[mf][A-Za-z0-9_-]{18}",
            "/[!-.0-~]{1,18}",
            "[0-9]{1,10}",
            "[ -~]{0,25}",
            any::<String>(),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// A number can be that of a segment of another program, which attaching and detaching does not harm.
        #[test]
        fn any_id_is_opened_or_an_error(text in shaped(), size: Option<usize>) {
            fn open<P: ShMemProvider>(id: ShMemId, size: Option<usize>) {
                let mut provider = P::default();
                let opened = match size {
                    Some(size) => provider.shmem_from_id_and_size(id, size),
                    None => provider.shmem_from_id(id),
                };
                if let Err(error) = opened {
                    assert!(!error.to_string().is_empty());
                }
            }
            let id = ShMemId::from_string(&text);
            open::<StdShMemProvider>(id, size);
            open::<MemfdShMemProvider>(id, size);
            open::<UnixShMemProvider>(id, size);
            open::<MmapShMemProvider>(id, size);
        }
    }
}

/// Readable formats have the text. What version 0.16 wrote is read as well.
#[test]
fn readable_formats_contain_the_text() {
    let id = ShMemId::from_string("/pictures");
    assert_eq!(serde_json::to_string(&id).unwrap(), r#""/pictures""#);
    let array = serde_json::to_string(id.as_array()).unwrap();
    for text in [
        r#""/pictures""#.to_owned(),
        array.clone(),
        format!(r#"{{"id":{array}}}"#),
    ] {
        let read: ShMemId = serde_json::from_str(&text).unwrap();
        assert_eq!(read, id, "{text}");
    }
    let long: ShMemId = serde_json::from_str(r#""a text of more than 19 bytes""#).unwrap();
    assert_eq!(long.as_str(), "?too-long");
    for text in ["[1,2]", "{}", "7", "null"] {
        assert!(serde_json::from_str::<ShMemId>(text).is_err(), "{text}");
    }

    let description = ShMemDescription { size: 5, id };
    let text = serde_json::to_string(&description).unwrap();
    assert_eq!(text, r#"{"size":5,"id":"/pictures"}"#);
    let read: ShMemDescription = serde_json::from_str(&text).unwrap();
    assert_eq!(read, description);
}

/// What a text names, and what `str::parse` accepts: exactly what has one of the documented formats.
#[test]
fn kinds_follow_the_documented_formats() {
    let named = [
        ("0", IdKind::SystemV { shmid: 0 }),
        ("2147483647", IdKind::SystemV { shmid: i32::MAX }),
        ("/name", IdKind::Posix),
        ("/shmem-AAAAAAAAAAA", IdKind::Posix),
        ("sAAAAAAAAAAAAAAAAAA", IdKind::Served),
        ("f0123456789abcdefg_", IdKind::File),
        ("w0123456789abcdefg-", IdKind::Section),
        (r"Local\name", IdKind::Section),
        (r"Global\name", IdKind::Section),
    ];
    for (text, kind) in named {
        assert_eq!(ShMemId::from_string(text).kind(), kind, "{text}");
        assert_eq!(text.parse::<ShMemId>().unwrap().as_ref(), text);
    }
    // Process 1, descriptor 3, nonce 5.
    let IdKind::Memfd(locator) = ShMemId::from_string("mAAAEAADAAAAAAAAAAF").kind() else {
        panic!("the id of a memfd");
    };
    assert_eq!(
        (locator.process_and_fd(), locator.nonce()),
        (Some((1, 3)), 5)
    );

    for text in [
        "",
        "-1",
        "007",
        "+1",
        "2147483648",
        "/",
        "/..",
        "/a/b",
        "name",
        "m",
        "mAAAAAAAAAAAAAAAAA",
        "sAAAAAAAAAAAAAAAAA!",
        "s",
        "w",
        "f",
        "fAAAAAAAAAAAAAAAAA",
        "f../../../../../..x",
        r"Local\",
        r"Local\a\b",
        "?too-long",
        "a\0b",
        "a text of more than 19 bytes",
    ] {
        let error = ShMemId::try_from(text).unwrap_err();
        assert_eq!(error.text(), text);
        assert!(!error.to_string().contains('\0'), "{error}");
    }
}

proptest! {
    #[test]
    fn parsing_agrees_with_the_kind(text in "[fmsw/?0-9A-Za-z_.-]{0,22}") {
        let is_id = !matches!(
            ShMemId::from_string(&text).kind(),
            IdKind::Empty | IdKind::Invalid { .. }
        );
        prop_assert_eq!(text.parse::<ShMemId>().is_ok(), is_id);
    }
}
