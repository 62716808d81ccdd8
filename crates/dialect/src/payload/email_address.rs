use serde_json::Value;

use super::code::unseen_ends_off;
use crate::secret::Secret;

/// Longest local part and address that a mail server takes, in bytes (RFC 5321, 4.5.3.1).
const MAX_LOCAL: usize = 64;
const MAX_ADDRESS: usize = 254;

/// One e-mail address, in whatever case its domain was typed. The part before the @ is left as it is, case and all:
/// only the domain's mail server knows what it means.
pub(crate) struct EmailAddress {
    local: Secret,
    /// The domain, in lower case.
    domain: String,
}

impl EmailAddress {
    /// The accepted form, for a hint.
    pub(crate) const RULE: &str = "an e-mail address in ASCII, as asha.rao@example.org";

    /// Accepts a dot-atom and a domain (RFC 5322, 3.4.1): an address that is quoted, commented or in brackets is
    /// nobody's.
    pub(crate) fn parse(typed: &str) -> Option<Self> {
        let typed = unseen_ends_off(typed);
        let (local, domain) = typed.split_once('@')?;
        let is_local = (1..=MAX_LOCAL).contains(&local.len())
            && local.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom));
        let labels = domain.split('.');
        let is_domain = labels.clone().count() >= 2
            && labels.clone().all(|label| {
                (1..=63).contains(&label.len())
                    && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                    && !label.starts_with('-')
                    && !label.ends_with('-')
            })
            // A last label without a letter makes an IP address.
            && domain.rsplit('.').next().is_some_and(|label| label.bytes().any(|byte| byte.is_ascii_alphabetic()));
        let sound = typed.len() <= MAX_ADDRESS && is_local && is_domain;
        sound.then(|| Self { local: Secret::new(local), domain: domain.to_ascii_lowercase() })
    }

    /// Reads an address from a member of a payload.
    pub(crate) fn parse_value(value: &Value) -> Option<Self> {
        value.as_str().and_then(Self::parse)
    }

    /// Returns the address in its one form, however its domain was typed; it is also sent in this form.
    pub(crate) fn recipient(&self) -> Secret {
        Secret::new(format!("{}@{}", self.local.reveal(), self.domain))
    }

    /// Returns `a***@example.org`; of a single character before the @ it shows nothing.
    pub(crate) fn masked(&self) -> String {
        let local = self.local.reveal();
        let shown = if local.len() > 1 { &local[..1] } else { "" };
        format!("{shown}***@{}", self.domain)
    }
}

fn is_atom(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_recipient_in_any_case_of_its_domain() {
        for (typed, recipient, masked) in [
            ("asha@example.org", "asha@example.org", "a***@example.org"),
            ("asha@EXAMPLE.Org", "asha@example.org", "a***@example.org"),
            ("Asha.Rao+otp@mail.example.org", "Asha.Rao+otp@mail.example.org", "A***@mail.example.org"),
            ("a@x-y.example", "a@x-y.example", "***@x-y.example"),
            (" asha@example.org\r\n", "asha@example.org", "a***@example.org"),
        ] {
            let address = EmailAddress::parse(typed).unwrap();
            assert_eq!((address.recipient().reveal(), address.masked().as_str()), (recipient, masked));
            // The form that parse makes is accepted and stays the same.
            let again = EmailAddress::parse(recipient).unwrap();
            assert_eq!((again.recipient().reveal(), again.masked().as_str()), (recipient, masked));
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("{}@example.org", "a".repeat(65));
        let longer = format!("a@{}example.org", "long-label.".repeat(25));
        for typed in [
            "",
            "@",
            "asha",
            "asha@",
            "@example.org",
            "asha@example",
            "a b@example.org",
            "asha@exa mple.org",
            "asha@@example.org",
            "asha@example.org@example.org",
            ".asha@example.org",
            "asha.@example.org",
            "a..b@example.org",
            "asha@.example.org",
            "asha@example..org",
            "asha@-example.org",
            "asha@example-.org",
            "asha@127.0.0.1",
            "asha@[127.0.0.1]",
            "\"a b\"@example.org",
            "asha@example.org\nb",
            "asha@example.org,b@example.org",
            "<asha@example.org>",
            "ásha@example.org",
            "asha@exämple.org",
            "a\r\nBcc: b@example.org",
            &long,
            &longer,
        ] {
            assert!(EmailAddress::parse(typed).is_none(), "{typed}");
        }
    }
}
