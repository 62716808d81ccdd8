//! Reads when a certificate ends, and nothing else of it. Whether it is to be trusted, rustls has decided before.

use rustls::pki_types::{CertificateDer, pem::PemObject};

/// Returns the end of the validity of the first certificate in PEM form, in seconds since 1970; None if there is none.
/// In a chain the first is the one that the others are authorities of.
pub fn certificate_end(pem: &[u8]) -> Option<i64> {
    not_after(&CertificateDer::from_pem_slice(pem).ok()?)
}

/// Returns the end of a certificate's validity, in seconds since 1970; None if it is no X.509 certificate (RFC 5280).
pub fn not_after(der: &[u8]) -> Option<i64> {
    const SEQUENCE: u8 = 0x30;
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(der).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (_, signed, _) = element(certificate).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (tag, _, after_first) = element(signed)?;
    // The version may be left out.
    let rest = if tag == VERSION { element(after_first)?.2 } else { after_first };
    // After the serial number: algorithm, issuer, validity.
    let rest = element(element(rest)?.2)?.2;
    let (_, validity, _) = element(rest).filter(|(tag, ..)| *tag == SEQUENCE)?;
    let (tag, time, _) = element(element(validity)?.2)?;
    time_of(tag, time)
}

/// Returns the first element of DER: its tag, its content, and what comes after it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The length follows in so many bytes.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((tag, content, after))
}

/// Reads `YYMMDDHHMMSSZ`, of the years 1950 to 2049, or `YYYYMMDDHHMMSSZ`, into seconds since 1970.
fn time_of(tag: u8, text: &[u8]) -> Option<i64> {
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => match number(&digits[..2]) {
            year @ 0..50 => (2000 + year, &digits[2..]),
            year => (1900 + year, &digits[2..]),
        },
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|at| number(&rest[at..at + 2]));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Returns the days since 1970, by the Gregorian calendar. Years begin in March here, so that a leap day is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    year.div_euclid(400) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut all = vec![tag];
        match u8::try_from(content.len()) {
            Ok(short @ 0..0x80) => all.push(short),
            _ => all.extend([0x82, (content.len() >> 8) as u8, content.len() as u8]),
        }
        all.extend(content);
        all
    }

    fn certificate(version: &[u8], not_after: &[u8]) -> Vec<u8> {
        let validity = der(0x30, &[der(0x17, b"200101000000Z").as_slice(), not_after].concat());
        let issuer = der(0x30, &[0x55; 300]);
        let signed = [version, &der(0x02, &[1]), &der(0x30, &[]), &issuer, &validity, &der(0x30, &[])].concat();
        der(0x30, &[der(0x30, &signed), der(0x30, &[]), der(0x03, &[0])].concat())
    }

    #[test]
    fn the_end_is_read() {
        let version = der(0xa0, &der(0x02, &[2]));
        for (tag, text, seconds) in [
            (0x17, "700101000000Z", 0),
            (0x17, "261128191500Z", 1_795_893_300),
            (0x17, "491231235959Z", 2_524_607_999),
            (0x17, "991231235959Z", 946_684_799),
            (0x18, "20500101000000Z", 2_524_608_000),
            (0x18, "20000229120000Z", 951_825_600),
            (0x18, "99991231235959Z", 253_402_300_799),
        ] {
            let end = der(tag, text.as_bytes());
            assert_eq!(not_after(&certificate(&version, &end)), Some(seconds), "{text}");
            assert_eq!(not_after(&certificate(&[], &end)), Some(seconds), "{text} of version 1");
        }
    }

    #[test]
    fn what_is_none_is_none() {
        let whole = certificate(&der(0xa0, &der(0x02, &[2])), &der(0x17, b"261128191500Z"));
        // No cut of the certificate panics; cut before the end of the validity, it has none.
        for length in 0..whole.len() {
            let _ = not_after(&whole[..length]);
            let mut other = whole.clone();
            for byte in [0, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                other[length] = byte;
                let _ = not_after(&other);
            }
        }
        for text in ["261328191500Z", "2611281915Z", "26112819150oZ", "261128191500+0100", ""] {
            assert_eq!(not_after(&certificate(&[], &der(0x17, text.as_bytes()))), None, "{text}");
        }
        assert_eq!(not_after(b"-----BEGIN CERTIFICATE-----"), None);
        for text in ["", "-----BEGIN CERTIFICATE-----", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"]
        {
            assert_eq!(certificate_end(text.as_bytes()), None, "{text}");
        }
    }
}
