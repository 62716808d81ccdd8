//! The ways in which a vendor, or the network before it, fails. Faults wait in a list; the first that fits a request is
//! applied to it and used up by one.

use std::rc::{Rc, Weak};
use std::time::Duration;

use serde_json::{Value, json};

use crate::dialect::Operation;
use crate::http::{Ending, Response};
use crate::vendor::Vendor;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Latency,
    Hold,
    Never,
    CloseBeforeRead,
    CloseAfterRead,
    CloseIdle,
    CloseAtReuse,
    Reset,
    Status,
    Reply,
    Html,
    Redirect,
    Truncated,
    TruncatedJson,
    WrongType,
    NotUtf8,
    Huge,
    Deep,
    Drip,
}

/// Kind, its name, whether the vendor does its work all the same (so that the person gets the message, or the code is
/// used), and what it does.
pub const KINDS: [(Kind, &str, bool, &str); 19] = [
    (Kind::Latency, "latency", true, "answers normally, after ms"),
    (Kind::Hold, "hold", true, "answers normally, after POST /release"),
    (Kind::Never, "never", true, "reads, never answers, keeps the connection open"),
    (
        Kind::CloseBeforeRead,
        "close_before_read",
        false,
        "closes when the request begins to arrive; it is not in the log, and not counted",
    ),
    (Kind::CloseAfterRead, "close_after_read", true, "reads all, closes without an answer"),
    (Kind::CloseIdle, "close_idle", true, "answers normally, closes the idle connection ms after (default 0)"),
    (
        Kind::CloseAtReuse,
        "close_at_reuse",
        true,
        "answers normally, closes when the connection's next request begins to arrive",
    ),
    (Kind::Reset, "reset", true, "reads all, resets the connection (RST)"),
    (Kind::Status, "status", false, "answers `status` (default 500) with `body` (default empty)"),
    (Kind::Reply, "reply", false, "answers `body`, as JSON, with `status` (default 200)"),
    (Kind::Html, "html", false, "answers 200 (or `status`) with an HTML page"),
    (
        Kind::Redirect,
        "redirect",
        false,
        "answers 302 (or `status`) to `location` (default /redirected, whose hits are logged)",
    ),
    (Kind::Truncated, "truncated", true, "promises the whole body, sends half of it, closes"),
    (Kind::TruncatedJson, "truncated_json", true, "complete HTTP with half of the JSON"),
    (Kind::WrongType, "wrong_type", false, "answers 200 with `body`, default an array"),
    (Kind::NotUtf8, "not_utf8", true, "the normal answer with a member more that is not UTF-8"),
    (Kind::Huge, "huge", true, "the normal answer with a member of 20 MB more; valid JSON"),
    (Kind::Deep, "deep", true, "the normal answer with a member nested 10,000 deep more; valid JSON"),
    (Kind::Drip, "drip", true, "the normal answer, one byte every ms (default 1000)"),
];

impl Kind {
    fn row(self) -> &'static (Kind, &'static str, bool, &'static str) {
        &KINDS[self as usize]
    }

    pub fn name(self) -> &'static str {
        self.row().1
    }
}

#[derive(Clone, Debug)]
pub struct Fault {
    pub kind: Kind,
    vendor: Option<Vendor>,
    operation: Option<Operation>,
    recipient: Option<String>,
    /// None until cleared.
    times: Option<u64>,
    ms: Option<u64>,
    status: Option<u16>,
    body: Option<String>,
    location: Option<String>,
    headers: Vec<(String, String)>,
    process: Option<bool>,
    /// Alive until the faults are cleared.
    standing: Weak<()>,
}

impl Fault {
    pub fn from_json(json: &Value) -> Result<Self, String> {
        let members = json.as_object().ok_or("a fault is a JSON object")?;
        let kind_name = json["kind"].as_str().ok_or("kind is missing")?;
        let (kind, ..) = *KINDS.iter().find(|(_, name, ..)| *name == kind_name).ok_or_else(|| {
            let names: Vec<_> = KINDS.iter().map(|(_, name, ..)| *name).collect();
            format!("kind {kind_name} is none of {}", names.join(", "))
        })?;
        let mut fault = Fault {
            kind,
            vendor: None,
            operation: None,
            recipient: None,
            times: None,
            ms: None,
            status: None,
            body: None,
            location: None,
            headers: Vec::new(),
            process: None,
            standing: Weak::new(),
        };
        for (name, value) in members {
            if value.is_null() {
                continue;
            }
            let text = || {
                let text = value.as_str().map(str::to_owned);
                text.ok_or_else(|| format!("{name} must be a string"))
            };
            let number = || {
                let number = value.as_u64();
                number.ok_or_else(|| format!("{name} must be a whole number"))
            };
            match name.as_str() {
                "kind" => {}
                "vendor" => fault.vendor = vendor_filter(&text()?)?,
                "operation" => fault.operation = operation_filter(&text()?)?,
                "recipient" => fault.recipient = Some(text()?),
                "times" => fault.times = Some(number()?),
                "ms" => fault.ms = Some(number()?),
                "status" => match number()? {
                    status @ 200..=599 => fault.status = Some(status as u16),
                    other => return Err(format!("status {other} is not from 200 to 599")),
                },
                // A body may be given as the JSON that it is.
                "body" => {
                    fault.body = Some(match value {
                        Value::String(text) => text.clone(),
                        other => other.to_string(),
                    });
                }
                "location" => fault.location = Some(text()?),
                "process" => {
                    let process = value.as_bool();
                    fault.process = Some(process.ok_or("process must be true or false")?);
                }
                "headers" => {
                    for (header, value) in value.as_object().ok_or("headers must be an object")? {
                        let value = value.as_str().ok_or_else(|| format!("header {header} must be a string"))?;
                        fault.headers.push((header.clone(), value.to_owned()));
                    }
                }
                _ => {
                    return Err(format!(
                        "{name} is none of kind, vendor, operation, recipient, times, ms, status, body, headers, \
                        location, process"
                    ));
                }
            }
        }
        if kind == Kind::CloseBeforeRead && fault.recipient.is_some() {
            return Err("close_before_read cannot know the recipient: it reads no body".into());
        }
        Ok(fault)
    }

    pub fn to_json(&self) -> Value {
        json!({
            "kind": self.kind.name(),
            "vendor": self.vendor.map_or("*", Vendor::name),
            "operation": self.operation.map_or("*", Operation::name),
            "recipient": self.recipient,
            "times": self.times,
            "ms": self.ms,
            "status": self.status,
            "body": self.body,
            "location": self.location,
            "process": self.process,
        })
    }

    fn fits(&self, vendor: Vendor, operation: Operation, recipient: Option<&str>) -> bool {
        self.vendor.is_none_or(|wanted| wanted == vendor)
            && self.operation.is_none_or(|wanted| wanted == operation)
            && self.recipient.as_deref().is_none_or(|wanted| recipient == Some(vendor.recipient_key(wanted).as_str()))
    }

    /// Whether the vendor does its work in spite of the fault.
    pub fn processes(&self) -> bool {
        self.process.unwrap_or(self.kind.row().2)
    }

    /// How long the fault delays its ending.
    pub fn delay(&self) -> Duration {
        match (self.kind, self.ms) {
            (Kind::CloseIdle | Kind::Drip, _) | (_, None) => Duration::ZERO,
            (_, Some(ms)) => Duration::from_millis(ms),
        }
    }

    /// What becomes of the answer; `normal` is what the vendor would have said, or `{}` where it did not do its work.
    pub fn ending(&self, normal: Response) -> Ending {
        let mut response = match self.kind {
            Kind::Status => Response::json(self.status.unwrap_or(500), self.body_or("")),
            Kind::Reply => Response::json(self.status.unwrap_or(200), self.body_or("{}")),
            Kind::WrongType => Response::json(self.status.unwrap_or(200), self.body_or("[1,2,3]")),
            Kind::Html => Response {
                content_type: "text/html; charset=utf-8",
                ..Response::json(
                    self.status.unwrap_or(200),
                    self.body_or(
                        "<!DOCTYPE html>\n<html><head><title>Maintenance</title></head><body><h1>We will be \
                    back soon</h1></body></html>\n",
                    ),
                )
            },
            Kind::Redirect => {
                let mut response = Response::json(self.status.unwrap_or(302), self.body_or(""));
                let location = self.location.as_deref().unwrap_or("/redirected");
                response.headers.push(("location".into(), location.into()));
                response
            }
            Kind::TruncatedJson => {
                let mut response = normal;
                response.body.truncate(response.body.len() / 2);
                response
            }
            Kind::NotUtf8 => with_member(normal, b"\"\xff\xfe\xc3\x28\""),
            Kind::Huge => {
                let mut filler = vec![b'x'; 20 << 20];
                filler[0] = b'"';
                filler.push(b'"');
                with_member(normal, &filler)
            }
            Kind::Deep => {
                let mut nest = vec![b'['; 10_000];
                nest.resize(20_000, b']');
                with_member(normal, &nest)
            }
            _ => normal,
        };
        response.headers.extend(self.headers.iter().cloned());
        let ms = Duration::from_millis;
        match self.kind {
            Kind::Never => Ending::Silence,
            Kind::CloseAfterRead | Kind::CloseBeforeRead => Ending::Close,
            Kind::Reset => Ending::Reset,
            Kind::CloseIdle => Ending::AnswerThenClose(response, ms(self.ms.unwrap_or(0))),
            Kind::CloseAtReuse => Ending::AnswerThenCloseAtReuse(response, self.standing.clone()),
            Kind::Truncated => Ending::HalfAnswer(response),
            Kind::Drip => Ending::Drip(response, ms(self.ms.unwrap_or(1000))),
            _ => Ending::Answer(response),
        }
    }

    fn body_or(&self, default: &str) -> Vec<u8> {
        self.body.as_deref().unwrap_or(default).as_bytes().to_vec()
    }
}

/// Puts a first member into the normal answer, so that a reader without limits would still find success in it.
fn with_member(mut normal: Response, value: &[u8]) -> Response {
    let rest = normal.body.strip_prefix(b"{").unwrap_or(b"}").to_vec();
    normal.body.clear();
    normal.body.reserve(value.len() + rest.len() + 16);
    normal.body.extend_from_slice(b"{\"filler\":");
    normal.body.extend_from_slice(value);
    if rest != b"}" {
        normal.body.push(b',');
    }
    normal.body.extend_from_slice(&rest);
    normal
}

/// None for `*`.
pub fn vendor_filter(name: &str) -> Result<Option<Vendor>, String> {
    if name == "*" {
        return Ok(None);
    }
    Vendor::from_name(name).map(Some).ok_or_else(|| {
        let names: Vec<_> = Vendor::ALL.iter().map(|vendor| vendor.name()).collect();
        format!("vendor {name} is none of *, {}", names.join(", "))
    })
}

pub fn operation_filter(name: &str) -> Result<Option<Operation>, String> {
    if name == "*" {
        return Ok(None);
    }
    Operation::from_name(name).map(Some).ok_or_else(|| {
        let names: Vec<_> = Operation::ALL.iter().map(|one| one.name()).collect();
        format!("operation {name} is none of *, {}", names.join(", "))
    })
}

#[derive(Default)]
pub struct Faults {
    all: Vec<Fault>,
    standing: Rc<()>,
}

impl Faults {
    pub fn add(&mut self, fault: Fault) {
        if fault.times != Some(0) {
            self.all.push(Fault { standing: Rc::downgrade(&self.standing), ..fault });
        }
    }

    /// Also spares the connections that a fault has doomed.
    pub fn clear(&mut self) {
        *self = Faults::default();
    }

    pub fn all(&self) -> impl Iterator<Item = &Fault> {
        self.all.iter()
    }

    /// The fault for a request that was read.
    pub fn take(&mut self, vendor: Vendor, operation: Operation, recipient: Option<&str>) -> Option<Fault> {
        self.take_where(|fault| fault.kind != Kind::CloseBeforeRead && fault.fits(vendor, operation, recipient))
    }

    /// Whether the connection is to be closed before the request is read.
    pub fn take_before_read(&mut self, vendor: Vendor, operation: Operation) -> bool {
        self.take_where(|fault| fault.kind == Kind::CloseBeforeRead && fault.fits(vendor, operation, None)).is_some()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    fn take_where(&mut self, fits: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let at = self.all.iter().position(fits)?;
        let fault = self.all[at].clone();
        if let Some(times) = &mut self.all[at].times {
            *times -= 1;
            if *times == 0 {
                self.all.remove(at);
            }
        }
        Some(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(json: Value) -> Fault {
        Fault::from_json(&json).unwrap()
    }

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (kind, name, ..) in KINDS {
            assert_eq!(kind.name(), name);
        }
    }

    #[test]
    fn faults_are_used_up_in_order() {
        let mut faults = Faults::default();
        faults.add(fault(json!({"kind": "status", "vendor": "paytm", "times": 1})));
        faults.add(fault(json!({"kind": "never", "recipient": "+94771234567"})));
        let mut take = |vendor, recipient| faults.take(vendor, Operation::Send, recipient).map(|fault| fault.kind);
        assert_eq!(take(Vendor::Ideamart, Some("771234567")), Some(Kind::Never));
        assert_eq!(take(Vendor::Ideamart, Some("771234568")), None);
        assert_eq!(take(Vendor::Paytm, None), Some(Kind::Status));
        assert_eq!(take(Vendor::Paytm, None), None);
        assert_eq!(take(Vendor::Ideamart, Some("771234567")), Some(Kind::Never));
    }

    #[test]
    fn clearing_spares_the_doomed() {
        let doom = |faults: &mut Faults| {
            faults.add(fault(json!({"kind": "close_at_reuse", "times": 1})));
            let fault = faults.take(Vendor::Paytm, Operation::Send, None).unwrap();
            let Ending::AnswerThenCloseAtReuse(_, doom) = fault.ending(Response::json(200, "{}")) else {
                panic!("it answers first");
            };
            doom
        };
        let mut faults = Faults::default();
        let doomed = doom(&mut faults);
        assert!(doomed.upgrade().is_some());
        faults.clear();
        assert!(doomed.upgrade().is_none());
        let doomed = doom(&mut faults);
        drop(faults);
        assert!(doomed.upgrade().is_none());
    }

    #[test]
    fn mistakes_are_named() {
        let mistake = |json: Value| Fault::from_json(&json).unwrap_err();
        assert!(mistake(json!({"kind": "sulk"})).contains("none of latency"));
        assert!(mistake(json!({"kind": "hold", "vendor": "x"})).contains("vendor x"));
        assert!(mistake(json!({"kind": "hold", "tims": 1})).contains("tims"));
    }

    #[test]
    fn deep_and_huge_stay_json() {
        let normal = Response::json(200, "{\"a\":1}");
        let Ending::Answer(deep) = fault(json!({"kind": "deep"})).ending(normal.clone()) else {
            panic!("deep answers");
        };
        assert!(deep.body.ends_with(b"],\"a\":1}"));
        let Ending::Answer(huge) = fault(json!({"kind": "huge"})).ending(normal) else {
            panic!("huge answers");
        };
        let value: Value = serde_json::from_slice(&huge.body).unwrap();
        assert_eq!(value["a"], 1);
    }
}
