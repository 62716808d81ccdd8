//! Aadhaar numbers, which identify a person of India and must never be kept.

/// Returns whether a text is twelve digits with a right check digit (Verhoeff), as UIDAI gives them out. One in ten
/// other numbers of twelve digits passes, too: rather a lost receipt number than a kept Aadhaar number.
pub fn is_aadhaar(digits: &str) -> bool {
    const TURN: [[u8; 10]; 8] = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        [1, 5, 7, 6, 2, 8, 3, 0, 9, 4],
        [5, 8, 0, 3, 7, 9, 6, 1, 4, 2],
        [8, 9, 1, 6, 0, 4, 3, 5, 2, 7],
        [9, 4, 5, 3, 1, 2, 6, 8, 7, 0],
        [4, 2, 8, 6, 5, 7, 3, 9, 0, 1],
        [2, 7, 9, 3, 8, 0, 6, 4, 1, 5],
        [7, 0, 4, 6, 9, 1, 3, 2, 5, 8],
    ];
    // Multiplication in the dihedral group of the pentagon.
    let times = |a: u8, b: u8| match (a < 5, b < 5) {
        (true, true) => (a + b) % 5,
        (true, false) => (a + (b - 5)) % 5 + 5,
        (false, true) => ((a - 5) + 5 - b) % 5 + 5,
        (false, false) => ((a - 5) + 5 - (b - 5)) % 5,
    };
    digits.len() == 12
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && digits
            .bytes()
            .rev()
            .enumerate()
            .fold(0, |check, (at, byte)| times(check, TURN[at % 8][usize::from(byte - b'0')]))
            == 0
}
