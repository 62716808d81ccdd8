//! One code that a person was sent, and what becomes of it.

use std::hash::{BuildHasher, RandomState};

pub struct Code {
    pub text: String,
    pub expires_ms: u64,
    pub tries_left: u32,
    pub used: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    /// With the tries that are left.
    Wrong(u32),
    Used,
    Expired,
    Exhausted,
}

impl Code {
    /// Checks what somebody typed, and counts it. Texts are compared, never numbers: a code may begin with 0.
    pub fn check(&mut self, typed: &str, now_ms: u64) -> Verdict {
        if self.used {
            Verdict::Used
        } else if now_ms >= self.expires_ms {
            Verdict::Expired
        } else if self.tries_left == 0 {
            Verdict::Exhausted
        } else if typed == self.text {
            self.used = true;
            Verdict::Right
        } else {
            self.tries_left -= 1;
            Verdict::Wrong(self.tries_left)
        }
    }
}

/// Random codes and ids. SplitMix64 is good enough: nothing here guards anything.
pub struct Dice(u64);

impl Dice {
    pub fn new() -> Self {
        Dice(RandomState::new().hash_one(0))
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn pick(&mut self, alphabet: &[u8], length: usize) -> String {
        (0..length).map(|_| char::from(alphabet[(self.roll() % alphabet.len() as u64) as usize])).collect()
    }

    pub fn digits(&mut self, length: usize) -> String {
        self.pick(b"0123456789", length)
    }

    /// At most 48 characters.
    pub fn hex(&mut self, length: usize) -> String {
        let mut text = format!("{:016x}{:016x}{:016x}", self.roll(), self.roll(), self.roll());
        text.truncate(length);
        text
    }

    pub fn uuid(&mut self) -> String {
        let (high, low) = (self.roll(), self.roll());
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xfff,
            low >> 48 & 0x3fff | 0x8000,
            low & 0xffff_ffff_ffff
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_lives_once() {
        let mut code = Code { text: "0420".into(), expires_ms: 100, tries_left: 2, used: false };
        assert_eq!(code.check("420", 0), Verdict::Wrong(1));
        assert_eq!(code.check("0420", 99), Verdict::Right);
        assert_eq!(code.check("0420", 99), Verdict::Used);
        code.used = false;
        assert_eq!(code.check("0420", 100), Verdict::Expired);
        assert_eq!(code.check("1", 0), Verdict::Wrong(0));
        assert_eq!(code.check("0420", 0), Verdict::Exhausted);
    }

    #[test]
    fn ids_have_their_shape() {
        let mut dice = Dice::new();
        assert_eq!(dice.hex(40).len(), 40);
        let uuid = dice.uuid();
        assert_eq!(uuid.len(), 36);
        assert_eq!(&uuid[14..15], "4");
    }
}
