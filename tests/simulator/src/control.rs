//! The control port: what a test asks and tells the simulator.

use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fault::{Fault, KINDS, operation_filter, vendor_filter};
use crate::http::{Line, Request, Response, Service, Turn, percent_decode};
use crate::log::Filter;
use crate::state::Simulator;
use crate::vendor::Vendor;

const MOST_WAIT_MS: u64 = 10 * 60 * 1000;

pub struct Control(pub Rc<Simulator>);

impl Service for Rc<Control> {
    fn refuse_to_read(&self, _method: &str, _target: &str) -> bool {
        false
    }

    async fn turn(&self, request: &Request<'_>, _line: Line) -> Turn {
        self.answer(request).await.unwrap_or_else(|mistake| respond(400, &json!({"error": mistake}))).into()
    }
}

fn respond(status: u16, json: &Value) -> Response {
    Response::json(status, json.to_string())
}

impl Control {
    async fn answer(&self, request: &Request<'_>) -> Result<Response, String> {
        let simulator = &self.0;
        let wait = Duration::from_millis(number(request, "wait")?.unwrap_or(0).min(MOST_WAIT_MS));
        let at_least = number(request, "atleast")?;
        let segments: Vec<&str> = request.path.split('/').skip(1).collect();

        let json = match (request.method, segments.as_slice()) {
            ("GET", [""]) => return Ok(Response::text(200, help())),
            ("GET", ["inbox", vendor, recipient]) => {
                let vendor = Vendor::from_name(vendor).ok_or_else(|| no_vendor(vendor))?;
                let recipient = percent_decode(recipient, false);
                let found = simulator
                    .wait_for(wait, |simulator| {
                        let world = simulator.world.borrow();
                        let message = world.inbox.latest(vendor, &recipient)?;
                        (message.count >= at_least.unwrap_or(1))
                            .then(|| json!({"code": message.code, "count": message.count}))
                    })
                    .await;
                match found {
                    Some(message) => message,
                    None => return Ok(respond(404, &json!({"error": "no code came"}))),
                }
            }
            ("GET", ["log"]) => simulator.world.borrow().log.entries(&filter(request)?),
            ("GET", ["keys"]) => simulator.world.borrow().log.keys(&filter(request)?),
            ("GET", ["count"]) => {
                let filter = filter(request)?;
                let counted = |simulator: &Simulator| simulator.world.borrow().log.counted(&filter);
                simulator.wait_for(wait, |simulator| (counted(simulator) >= at_least.unwrap_or(0)).then_some(())).await;
                json!({"count": counted(simulator)})
            }
            ("GET", ["held"]) => {
                simulator
                    .wait_for(wait, |simulator| (simulator.gate.held() >= at_least.unwrap_or(0)).then_some(()))
                    .await;
                json!({"held": simulator.gate.held()})
            }
            ("POST", ["release"]) => json!({"released": simulator.gate.open()}),
            ("GET", ["fault"]) => {
                let world = simulator.world.borrow();
                world.faults.all().map(Fault::to_json).collect()
            }
            ("POST", ["fault"]) => {
                let faults = match body(request)? {
                    Value::Array(faults) => faults,
                    fault => vec![fault],
                };
                // All or none.
                let faults = faults.iter().map(Fault::from_json).collect::<Result<Vec<_>, _>>()?;
                let added = faults.len();
                let mut world = simulator.world.borrow_mut();
                faults.into_iter().for_each(|fault| world.faults.add(fault));
                json!({"added": added})
            }
            ("DELETE", ["fault"]) => {
                simulator.world.borrow_mut().faults.clear();
                json!({"cleared": true})
            }
            ("GET", ["clock"]) => clock(simulator),
            ("POST", ["clock"]) => {
                let seconds =
                    body(request)?["advance_seconds"].as_u64().ok_or("advance_seconds must be a whole number")?;
                simulator.world.borrow_mut().clock.advance(seconds);
                clock(simulator)
            }
            ("GET", ["logging"]) => json!({"enabled": simulator.logging.get()}),
            ("POST", ["logging"]) => {
                let enabled = body(request)?["enabled"].as_bool();
                simulator.logging.set(enabled.ok_or("enabled must be true or false")?);
                json!({"enabled": simulator.logging.get()})
            }
            ("POST", ["revoke"]) => {
                simulator.world.borrow_mut().vendors.relid.revoke_tokens();
                json!({"revoked": true})
            }
            ("POST", ["reset"]) => {
                simulator.reset();
                json!({"reset": true})
            }
            (method, _) => {
                let mistake = format!("nothing at {method} {}; GET / lists what there is", request.path);
                return Ok(respond(404, &json!({"error": mistake})));
            }
        };
        Ok(respond(200, &json))
    }
}

fn body(request: &Request<'_>) -> Result<Value, String> {
    serde_json::from_slice(&request.body).map_err(|error| format!("the body is not JSON: {error}"))
}

fn number(request: &Request<'_>, name: &str) -> Result<Option<u64>, String> {
    request.query_value(name).map(|text| text.parse()).transpose().map_err(|_| format!("{name} must be a whole number"))
}

fn filter(request: &Request<'_>) -> Result<Filter, String> {
    let value = |name| request.query_value(name);
    Ok(Filter {
        vendor: vendor_filter(value("vendor").as_deref().unwrap_or("*"))?,
        operation: operation_filter(value("operation").as_deref().unwrap_or("*"))?,
        recipient: value("recipient").map(|recipient| recipient.into_owned()),
    })
}

fn no_vendor(name: &str) -> String {
    vendor_filter(name).err().unwrap_or_default()
}

fn clock(simulator: &Simulator) -> Value {
    let clock = &simulator.world.borrow().clock;
    json!({"now_ms": clock.now_ms(), "advanced_seconds": clock.advanced_seconds()})
}

fn help() -> String {
    let mut text = String::from(HELP);
    for (_, name, processes, does) in KINDS {
        let mark = if processes { '*' } else { ' ' };
        text.push_str(&format!("  {name:<18}{mark} {does}\n"));
    }
    text
}

const HELP: &str = r#"OTP vendor simulator: control port. Answers are JSON; mistakes are 400 with {"error"}.

GET  /inbox/{vendor}/{recipient}[?wait=ms&atleast=n]   the latest code for a recipient, {"code","count"}; 404 if none came.
                                                       Recipients: a number in any form, an e-mail address; for relid
                                                       the user_id.
GET  /count[?vendor=&operation=&recipient=][&atleast=n&wait=ms]   {"count"} of requests that arrived
GET  /keys[?vendor=&operation=]                        one correlating key per request that arrived, in order:
                                                       ideamart applicationHash or referenceNo, hyperverge transactionId,
                                                       relid msg_id or notification_uuid, paytm orderId,
                                                       iserveu externalRefNumber or mobile number, twilio To or
                                                       the sid, msg91 mobile
GET  /log[?vendor=&operation=&recipient=]              every request, whole; "complaint" says what broke the vendor's rules
GET  /logging, POST /logging {"enabled":false}         the log costs time and memory: turn it off for benchmarks
GET  /clock, POST /clock {"advance_seconds":n}         codes and tokens expire by this clock
GET  /fault, POST /fault {...} or [{...},...], DELETE /fault
GET  /held[?atleast=n&wait=ms], POST /release          requests that the fault `hold` holds
POST /revoke                                           revokes all REL-ID tokens that were issued
POST /reset                                            all of it as at the start (logging stays as it is)

vendor: as its prefix on the other ports; redirected (where `redirect` points to), unknown (no vendor's path)
operation: send, verify, resend, cancel, token, unknown

A fault: {"kind":"status","vendor":"ideamart","operation":"send","recipient":"0771234567","times":1,"ms":..,"status":..,
"body":"..","headers":{"Retry-After":"7"},"location":"..","process":true}. vendor and operation default to "*"; without
times it stays until cleared. The first fault that fits a request is applied and used up by one. ms delays any fault
(but close_idle and drip, which have their own use for it). Kinds marked * let the vendor do its work (the person gets
the message, the code is used up); "process" decides otherwise. Without it there is no complaint either: nobody looked.

"#;
