//! Inputs out of the vendors' documented answers: mostly libFuzzer's own mutations, and some that keep JSON well-formed
//! and know where a secret may stand.

use libfuzzer_sys::fuzzer_mutate;
use serde_json::{Value, json};

use crate::{DESCRIPTION, HEAD, description, page::documented, watch::Canaries};

pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut dice = Dice(u64::from(seed) + 1);
    if size <= HEAD || dice.roll(256) == 0 {
        return begin(data, max_size, &mut dice);
    }
    // What libFuzzer makes of a description is seldom JSON.
    let is_description = data[0] == DESCRIPTION && dice.roll(8) > 0;
    match dice.roll(8) {
        0..4 if !is_description => fuzzer_mutate(data, size, max_size),
        4 if !is_description => {
            data[dice.roll(HEAD)] = dice.roll(256) as u8;
            size
        }
        5 if !is_description => insert(data, size, max_size, &mut dice),
        _ => reshape(data, size, max_size, &mut dice).unwrap_or_else(|| fuzzer_mutate(data, size, max_size)),
    }
}

/// A documented answer, to a call of any vendor; or a description.
fn begin(data: &mut [u8], max_size: usize, dice: &mut Dice) -> usize {
    if dice.roll(4) == 0 && max_size > HEAD {
        data[0] = DESCRIPTION;
        return write(data, max_size, &description::whole()).unwrap_or(HEAD);
    }
    let (_, _, answer) = documented().swap_remove(dice.roll(documented().len()));
    for byte in &mut data[..HEAD.min(max_size)] {
        *byte = dice.roll(256) as u8;
    }
    write(data, max_size, &answer).unwrap_or(HEAD.min(max_size))
}

/// A mark at any place.
fn insert(data: &mut [u8], size: usize, max_size: usize, dice: &mut Dice) -> usize {
    let mut mark = [0; 4];
    let mark = Canaries::mark(dice.roll(256) as u32).encode_utf8(&mut mark).as_bytes();
    if size + mark.len() > max_size {
        return size;
    }
    let at = HEAD + dice.roll(size - HEAD + 1);
    data.copy_within(at..size, at + mark.len());
    data[at..at + mark.len()].copy_from_slice(mark);
    size + mark.len()
}

/// What leads a description astray.
const ASTRAY: [&str; 16] = [
    "/",
    "//evil.example/x",
    "/..",
    "/%2e%2e/{mobile}",
    "/a//b",
    "/{mobile}",
    "/{reference}/..",
    "@evil.example/",
    "{mobile}",
    "{code}",
    "{reference}",
    "{note}",
    "x\r\nHost: evil.example",
    "host",
    "approved",
    "5xx",
];

/// Another value, or another key, in the place of one member.
fn reshape(data: &mut [u8], size: usize, max_size: usize, dice: &mut Dice) -> Option<usize> {
    let mut answer: Value = serde_json::from_slice(&data[HEAD..size]).ok()?;
    let mut at = &mut answer;
    // Downwards, as far as the dice like.
    loop {
        let members = match at {
            Value::Object(members) => members.len(),
            Value::Array(items) => items.len(),
            _ => 0,
        };
        // Of a description what leads astray is at its leaves.
        if members == 0 || dice.roll(if data[0] == DESCRIPTION { 16 } else { 4 }) == 0 {
            break;
        }
        let member = dice.roll(members);
        at = match at {
            Value::Object(members) => members.values_mut().nth(member)?,
            Value::Array(items) => items.get_mut(member)?,
            _ => return None,
        };
    }
    let mark = Canaries::mark(dice.roll(256) as u32);
    let text = match dice.roll(4) {
        _ if data[0] == DESCRIPTION => ASTRAY[dice.roll(ASTRAY.len())].to_owned(),
        0 => format!("{mark}"),
        1 => format!("OTP {mark} sent to {mark}."),
        2 => format!("{mark}{}", Canaries::mark(dice.roll(256) as u32)),
        _ => format!("{}...", "x".repeat(dice.roll(600))),
    };
    match (at, dice.roll(4)) {
        (Value::Object(members), 0..3) => {
            const NAMES: [&str; 10] = [
                "statusDesc",
                "message",
                "error",
                "error_message",
                "referenceNo",
                "subscriberId",
                "mobile",
                "x",
                "when",
                "path",
            ];
            let name = if dice.roll(4) == 0 { text.clone() } else { NAMES[dice.roll(NAMES.len())].into() };
            members.insert(name, json!(text));
        }
        (Value::String(old), 0..2) if data[0] == DESCRIPTION => *old = text,
        (Value::String(old), 0..3) => old.insert_str(0, &text),
        (at, 3) => {
            let old = at.take();
            *at = json!([old, {"a": text}]);
        }
        (at, _) => {
            *at = [json!(text), json!(null), json!(true), json!(200), json!({}), json!("SUCCESS")][dice.roll(6)].clone()
        }
    }
    write(data, max_size, &answer)
}

fn write(data: &mut [u8], max_size: usize, answer: &Value) -> Option<usize> {
    let text = answer.to_string();
    let size = HEAD + text.len();
    data[..max_size].get_mut(HEAD..size)?.copy_from_slice(text.as_bytes());
    Some(size)
}

/// xorshift64*: what a seed makes, it makes again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides
    }
}
