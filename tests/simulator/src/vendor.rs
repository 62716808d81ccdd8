//! The vendors that are played: the one list of them. A vendor is a file of this folder, declared in `main.rs`, and a
//! line here.

use crate::dialect::Dialect;

macro_rules! vendors {
    ($($vendor:ident $name:ident $refusal:literal,)*) => {
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Vendor {
            $($vendor,)*
            /// Not a vendor: where the fault `redirect` points to. Nobody should ever arrive there.
            Redirected,
            /// Requests whose path begins with no vendor's prefix.
            Unknown,
        }

        impl Vendor {
            pub const ALL: &[Vendor] = &[$(Vendor::$vendor,)* Vendor::Redirected, Vendor::Unknown];

            pub fn name(self) -> &'static str {
                match self {
                    $(Vendor::$vendor => stringify!($name),)*
                    Vendor::Redirected => "redirected",
                    Vendor::Unknown => "unknown",
                }
            }
        }

        /// The vendors' memories.
        #[derive(Default)]
        pub struct Vendors {
            $(pub $name: crate::$name::$vendor,)*
        }

        impl Vendors {
            pub fn dialect(&mut self, vendor: Vendor) -> Option<&mut dyn Dialect> {
                match vendor {
                    $(Vendor::$vendor => Some(&mut self.$name),)*
                    Vendor::Redirected | Vendor::Unknown => None,
                }
            }
        }

        /// Each vendor's name, and how it refuses a credential.
        pub const REFUSALS: &[(&str, &str)] = &[$((stringify!($name), $refusal),)*];
    };
}

vendors! {
    Iserveu iserveu "client_id, client_secret (headers): 401, no body",
    Hyperverge hyperverge "appId, appKey (headers): 401, JSON body",
    Paytm paytm "Basic user and password, token: 200, resultCode 401",
    Relid relid "Basic, Bearer, OAuth client (/relid/oauth/token): 401, no body; of the client invalid_client",
    Ideamart ideamart "applicationId, password (body): 200, E1313",
    Twilio twilio "Basic user and password: 401, code 20003",
    Vonage vonage "Basic key and secret: 401, problem+json",
    Msg91 msg91 "authkey (header): 200, type error",
}

impl Vendor {
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|vendor| vendor.name() == name)
    }

    /// `/ideamart/subscription/otp/request` is Ideamart and `/subscription/otp/request`.
    pub fn of_path(path: &str) -> (Self, &str) {
        let rest = path.strip_prefix('/').unwrap_or(path);
        let end = rest.find('/').unwrap_or(rest.len());
        match Self::from_name(&rest[..end]) {
            Some(vendor) => (vendor, &rest[end..]),
            None => (Vendor::Unknown, path),
        }
    }

    /// One form for every way to write a recipient: the last ten digits of an Indian number, the last nine of one of any
    /// other country; REL-ID's user ids as they are; an e-mail address in lower case.
    pub fn recipient_key(self, recipient: &str) -> String {
        let digits = match self {
            Vendor::Relid => return recipient.to_owned(),
            _ if recipient.contains('@') => return recipient.to_lowercase(),
            Vendor::Iserveu | Vendor::Hyperverge | Vendor::Paytm => 10,
            _ => 9,
        };
        let mut key: String = recipient.chars().filter(char::is_ascii_digit).collect();
        key.drain(..key.len().saturating_sub(digits));
        key
    }
}

/// `/iserveu /hyperverge ...`
pub fn prefixes() -> String {
    REFUSALS.iter().map(|(name, _)| format!("/{name}")).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_recipients() {
        assert_eq!(Vendor::of_path("/relid/x.htm"), (Vendor::Relid, "/x.htm"));
        assert_eq!(Vendor::of_path("/relidx/y").0, Vendor::Unknown);
        assert_eq!(Vendor::of_path("/redirected"), (Vendor::Redirected, ""));
        assert_eq!(Vendor::Ideamart.recipient_key("tel:94771234567"), "771234567");
        assert_eq!(Vendor::Paytm.recipient_key("+91 98765 43210"), "9876543210");
        assert_eq!(Vendor::Twilio.recipient_key("Asha@Example.ORG"), "asha@example.org");
    }
}
