//! Ids in messages and files: as text where people read them, as 20 bytes elsewhere.

use core::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{LEN, ShMemId};

/// The text in readable formats such as JSON; the 20 bytes, without a length, in binary ones such as
/// postcard.
impl Serialize for ShMemId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(self.as_str())
        } else {
            self.as_array().serialize(serializer)
        }
    }
}

/// Never fails on the content: what cannot be an id becomes one that opens nothing, as in
/// [`ShMemId::from_string`] and [`ShMemId::from_array`]. In readable formats it also accepts the 20 bytes,
/// alone or as the field `id`, as version 0.16 wrote them.
impl<'de> Deserialize<'de> for ShMemId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(TextOrBytes)
        } else {
            <[u8; LEN]>::deserialize(deserializer).map(Self::from)
        }
    }
}

struct TextOrBytes;

impl<'de> Visitor<'de> for TextOrBytes {
    type Value = ShMemId;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the text of an id, or its 20 bytes")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<ShMemId, E> {
        Ok(ShMemId::from_string(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ShMemId, A::Error> {
        let mut id = None;
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Id => id = Some(map.next_value::<[u8; LEN]>()?.into()),
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        id.ok_or_else(|| A::Error::missing_field("id"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<ShMemId, A::Error> {
        let mut bytes = [0; LEN];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = sequence
                .next_element()?
                .ok_or_else(|| A::Error::invalid_length(index, &self))?;
        }
        Ok(ShMemId::from(bytes))
    }
}

/// A field of an id as version 0.16 wrote it.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Field {
    Id,
    #[serde(other)]
    Other,
}
