//! Headers made by hand, most of them to deceive.

use super::*;
use crate::checkpoint::gguf::value::Value;

/// A file in the making; `data` is what its tensors' bytes fill.
struct Made {
    keys: Vec<Vec<u8>>,
    tensors: Vec<Vec<u8>>,
    data: usize,
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(name), kind.to_le_bytes().as_slice(), value].concat()
}

fn list(kind: u32, count: u64, elements: &[u8]) -> Vec<u8> {
    [kind.to_le_bytes().as_slice(), &count.to_le_bytes(), elements].concat()
}

fn tensor(name: &str, sides: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = text(name);
    bytes.extend((sides.len() as u32).to_le_bytes());
    bytes.extend(sides.iter().flat_map(|side| side.to_le_bytes()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

impl Made {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3u32.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.keys.len() as u64).to_le_bytes());
        bytes.extend(self.keys.concat());
        bytes.extend(self.tensors.concat());
        bytes.resize(bytes.len().next_multiple_of(32) + self.data, 0);
        bytes
    }
}

fn read(bytes: &[u8]) -> Result<Header, CheckpointError> {
    Header::read(Path::new("x.gguf"), bytes, bytes.len() as u64)
}

fn with_key(key: Vec<u8>) -> Vec<u8> {
    Made { keys: vec![key], tensors: vec![], data: 0 }.bytes()
}

fn with_tensors(tensors: Vec<Vec<u8>>) -> Vec<u8> {
    Made { keys: vec![], tensors, data: 256 }.bytes()
}

#[test]
fn all_kinds_of_values_are_read() {
    let keys = vec![
        key("u8", 0, &[255]),
        key("i8", 1, &[255]),
        key("u64", 10, &u64::MAX.to_le_bytes()),
        key("i64", 11, &i64::MIN.to_le_bytes()),
        key("f32", 6, &0.5f32.to_le_bytes()),
        key("f64", 12, &0.1f64.to_le_bytes()),
        key("bool", 7, &[1]),
        key("text", 8, &text("Grüße")),
        key("texts", 9, &list(8, 2, &[text("a"), text("")].concat())),
        key("i16s", 9, &list(3, 2, &[255, 255, 1, 0])),
        key("f32s", 9, &list(6, 1, &0.5f32.to_le_bytes())),
        key("bools", 9, &list(7, 2, &[0, 1])),
        key("none", 9, &list(5, 0, &[])),
    ];
    let values = read(&Made { keys, tensors: vec![], data: 0 }.bytes()).unwrap().values;
    let expected = [
        ("u8", Value::Integer(255)),
        ("i8", Value::Integer(-1)),
        ("u64", Value::Integer(u64::MAX.into())),
        ("i64", Value::Integer(i64::MIN.into())),
        ("f32", Value::Float(0.5)),
        ("f64", Value::Float(0.1)),
        ("bool", Value::Bool(true)),
        ("text", Value::Text("Grüße".to_owned())),
        ("texts", Value::Texts(vec!["a".into(), "".into()])),
        ("i16s", Value::Integers(vec![-1, 1])),
        ("f32s", Value::Floats(vec![0.5])),
        ("bools", Value::Bools(vec![false, true])),
        ("none", Value::Integers(vec![])),
    ];
    assert_eq!(values, expected.map(|(key, value)| (key.to_owned(), value)).into());
}

#[test]
fn tensors_lie_where_the_table_says() {
    let alignment = key(ALIGNMENT_KEY, 4, &64u32.to_le_bytes());
    let tensors = vec![tensor("b", &[32, 2, 3], 8, 64), tensor("a", &[4], 0, 0)];
    let made = Made { keys: vec![alignment], tensors, data: 64 + 6 * 34 + 64 };
    let tensors = read(&made.bytes()).unwrap().tensors;
    let (a, b) = (&tensors["a"], &tensors["b"]);
    assert!(a.offset.is_multiple_of(64) && b.offset == a.offset + 64);
    assert_eq!((a.rows(), a.columns(), a.bytes), (1, 4, 16));
    assert_eq!((b.shape.as_slice(), b.rows(), b.columns()), ([3, 2, 32].as_slice(), 6, 32));
    assert_eq!((b.bytes, b.row_bytes(), b.stored), (204, 34, Stored::Q8_0));
}

#[test]
fn headers_that_lie_are_refused() {
    let good = with_tensors(vec![tensor("x", &[8], 0, 0)]);
    let at = |offset: usize, new: &[u8]| {
        let mut bytes = good.clone();
        bytes[offset..offset + new.len()].copy_from_slice(new);
        bytes
    };
    let huge = u64::MAX.to_le_bytes();
    let half = (1u64 << 63).to_le_bytes();
    let cases = [
        (vec![], "truncated"),
        (b"GGML".to_vec(), "`GGUF`"),
        (at(4, &1u32.to_le_bytes()), "version is 1"),
        (at(4, &3u32.to_be_bytes()), "big-endian"),
        (at(8, &huge), "tensors"),
        (at(16, &huge), "metadata keys"),
        (at(8, &60_000u64.to_le_bytes()), "0 sides"),
        (with_key(huge.to_vec()), "a text claims"),
        (with_key(60_000u64.to_le_bytes().to_vec()), "truncated"),
        (with_key(key("k", 8, &half)), "a text claims"),
        (with_key(key("k", 8, &(1u64 << 20).to_le_bytes())), "truncated"),
        (with_key(key("k", 8, &[&2u64.to_le_bytes()[..], &[0xc3, 0x28]].concat())), "not UTF-8"),
        (with_key(key("k", 7, &[2])), "0 or 1"),
        (with_key(key("k", 13, &[0; 8])), "type 13"),
        (with_key(key("k", 9, &list(9, 1, &list(0, 1, &[1])))), "list of lists"),
        (with_key(key("k", 9, &list(77, 1, &[1]))), "type 77"),
        (with_key(key("k", 9, &list(0, u64::MAX, &[]))), "a list claims"),
        (with_key(key("k", 9, &list(8, 1 << 22, &[]))), "truncated"),
        (with_key(key("k", 9, &list(10, 1, &huge))), "2^63"),
        (
            Made { keys: vec![key("k", 0, &[1]), key("k", 0, &[1])], tensors: vec![], data: 0 }.bytes(),
            "`k` is there twice",
        ),
        (with_key(key(ALIGNMENT_KEY, 4, &48u32.to_le_bytes())), "no power of two"),
        (with_key(key(ALIGNMENT_KEY, 4, &0u32.to_le_bytes())), "no power of two"),
        (with_key(key(ALIGNMENT_KEY, 11, &i64::MIN.to_le_bytes())), "no power of two"),
        (with_key(key(ALIGNMENT_KEY, 8, &text("32"))), "is no number"),
        (with_tensors(vec![tensor("x", &[], 0, 0)]), "0 sides"),
        (with_tensors(vec![tensor("x", &[1; 5], 0, 0)]), "5 sides"),
        (with_tensors(vec![tensor("x", &[0], 0, 0)]), "side of 0"),
        (with_tensors(vec![tensor("x", &[u64::MAX], 0, 0)]), "has a side"),
        (with_tensors(vec![tensor("x", &[1 << 32, 1 << 32], 0, 0)]), "has a side"),
        (with_tensors(vec![tensor("x", &[1 << 47], 0, 0)]), "truncated"),
        (with_tensors(vec![tensor("x", &[256], 10, 0)]), "stored as Q2_K; supported are F32"),
        (with_tensors(vec![tensor("x", &[256], 4_000_000_000, 0)]), "type 4000000000"),
        (with_tensors(vec![tensor("x", &[33], 8, 0)]), "no multiple of Q8_0's 32"),
        (with_tensors(vec![tensor("x", &[8], 0, 4)]), "no multiple of 32"),
        (with_tensors(vec![tensor("x", &[8], 0, 1 << 40)]), "truncated"),
        (with_tensors(vec![tensor("x", &[8], 0, u64::MAX - 31)]), "truncated"),
        (with_tensors(vec![tensor("x", &[16], 0, 0), tensor("y", &[8], 0, 32)]), "`y` overlaps"),
        (with_tensors(vec![tensor("x", &[8], 0, 0), tensor("x", &[8], 0, 32)]), "twice"),
    ];
    for (bytes, expected) in cases {
        let error = read(&bytes).expect_err(expected).to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(error.len() < 600, "{error}");
    }
    assert_eq!(read(&good).unwrap().tensors.len(), 1);
}

/// Every byte of a header turned into others: any answer will do that is one.
#[test]
fn no_byte_brings_it_down() {
    let keys = vec![
        key("a", 9, &list(8, 2, &[text("b"), text("c")].concat())),
        key(ALIGNMENT_KEY, 4, &32u32.to_le_bytes()),
        key("d", 9, &list(6, 2, &[0; 8])),
    ];
    let good = Made { keys, tensors: vec![tensor("x", &[32, 2], 8, 0)], data: 96 }.bytes();
    let mut refused = 0;
    for at in 0..good.len() - 96 {
        for new in [0, 1, 9, 0x20, 0x7f, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = new;
            refused += usize::from(read(&bytes).is_err());
        }
    }
    assert!(refused > 500, "{refused}");
}
