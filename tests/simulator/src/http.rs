//! A small HTTP/1.1 server: keep-alive, one write for each answer, and ways to misbehave that no ordinary server has.
//! A service turns a request into a [`Turn`]; this file carries the turn out.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Weak;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_rustls::server::TlsStream;

const MAX_HEADERS: usize = 64;
const MAX_HEAD: usize = 64 << 10;
const MAX_BODY: usize = 8 << 20;

pub struct Request<'a> {
    pub method: &'a str,
    pub path: &'a str,
    /// Without the question mark; still percent-encoded.
    pub query: &'a str,
    pub headers: &'a [httparse::Header<'a>],
    pub body: Cow<'a, [u8]>,
}

impl<'a> Request<'a> {
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
            .and_then(|header| std::str::from_utf8(header.value).ok())
            .map(str::trim)
    }

    pub fn query_value(&self, name: &str) -> Option<Cow<'a, str>> {
        query_pairs(self.query).find(|(key, _)| key == name).map(|(_, value)| value)
    }
}

/// The pairs of a query string or of a form body, decoded.
pub fn query_pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(key, true), percent_decode(value, true))
    })
}

pub fn percent_decode(text: &str, plus_is_space: bool) -> Cow<'_, str> {
    let is_escape = |c| c == '%' || (plus_is_space && c == '+');
    if !text.contains(is_escape) {
        return Cow::Borrowed(text);
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16)).map(|d| d as u8);
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 3;
                continue;
            }
            (b'+', ..) if plus_is_space => out.push(b' '),
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

#[derive(Clone)]
pub struct Response {
    pub status: u16,
    pub content_type: &'static str,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Response { status, content_type: "application/json", headers: Vec::new(), body: body.into() }
    }

    pub fn text(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Response { content_type: "text/plain; charset=utf-8", ..Response::json(status, body) }
    }

    fn write_head(&self, out: &mut Vec<u8>) {
        let reason = match self.status {
            200 => "OK",
            302 => "Found",
            400 => "Bad Request",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "Not Found",
            405 => "Method Not Allowed",
            429 => "Too Many Requests",
            500 => "Internal Server Error",
            502 => "Bad Gateway",
            503 => "Service Unavailable",
            _ => "Answer",
        };
        let Response { status, content_type, headers, body } = self;
        // Writing into a Vec cannot fail.
        let _ =
            io::Write::write_fmt(out, format_args!("HTTP/1.1 {status} {reason}\r\ncontent-length: {}\r\n", body.len()));
        // An empty body has no type: vendors' bare 401s carry none.
        if !body.is_empty() {
            for part in ["content-type: ", content_type, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        for (name, value) in headers {
            for part in [name.as_str(), ": ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

pub type Pause = Pin<Box<dyn Future<Output = ()>>>;

/// What to do about one request: perhaps wait, and then end it in some way.
pub struct Turn {
    pub pause: Option<Pause>,
    pub ending: Ending,
}

pub enum Ending {
    Answer(Response),
    /// Answers, keeps the connection alive, and closes it so long after.
    AnswerThenClose(Response, Duration),
    /// Answers, and kills the connection when the next request begins to arrive on it, while the fault stands.
    AnswerThenCloseAtReuse(Response, Weak<()>),
    /// Sends a head that promises the whole body, half of the body, and closes.
    HalfAnswer(Response),
    /// Sends one byte in each interval.
    Drip(Response, Duration),
    /// Never answers, and keeps the connection open for as long as the caller does.
    Silence,
    Close,
    Reset,
}

impl From<Response> for Turn {
    fn from(response: Response) -> Self {
        Turn { pause: None, ending: Ending::Answer(response) }
    }
}

/// Where a request came in.
#[derive(Clone, Copy)]
pub struct Line {
    pub listener: &'static str,
    pub connection: u64,
}

pub trait Service {
    /// Asked as soon as the request line is there: true kills the connection with everything else unread.
    fn refuse_to_read(&self, method: &str, target: &str) -> bool;

    async fn turn(&self, request: &Request<'_>, line: Line) -> Turn;
}

pub trait Wire: AsyncRead + AsyncWrite + Unpin {
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// Serves one connection until either side ends it. Errors are the peer's going away: nobody needs to hear of them.
pub async fn serve<W: Wire, S: Service>(mut wire: W, line: Line, service: &S) -> io::Result<()> {
    let mut input: Vec<u8> = Vec::with_capacity(4 << 10);
    let mut output: Vec<u8> = Vec::with_capacity(4 << 10);
    let mut close_at: Option<Instant> = None;
    let mut doomed: Weak<()> = Weak::new();

    loop {
        let mut told_to_continue = false;
        let mut line_seen = false;
        let frame = loop {
            if !input.is_empty() {
                if doomed.upgrade().is_some() {
                    return reset(&wire);
                }
                if !line_seen && let Some((method, target)) = request_line(&input) {
                    line_seen = true;
                    if service.refuse_to_read(method, target) {
                        return reset(&wire);
                    }
                }
                match frame(&input) {
                    Framing::Whole(frame) => break frame,
                    Framing::Broken(why) => {
                        output.clear();
                        let refusal = Response::text(400, format!("{why}\n"));
                        refusal.write_head(&mut output);
                        output.extend_from_slice(&refusal.body);
                        wire.write_all(&output).await?;
                        return wire.shutdown().await;
                    }
                    Framing::WantsContinue if !told_to_continue => {
                        told_to_continue = true;
                        wire.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
                        wire.flush().await?;
                    }
                    Framing::WantsContinue | Framing::Partial => {}
                }
            }
            let read = match close_at {
                Some(at) if input.is_empty() => tokio::select! {
                    read = wire.read_buf(&mut input) => read?,
                    () = sleep_until(at) => return wire.shutdown().await,
                },
                _ => wire.read_buf(&mut input).await?,
            };
            if read == 0 {
                return Ok(());
            }
        };

        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Request::new(&mut headers);
        if head.parse(&input).is_err() {
            return Ok(());
        }
        let (path, query) = match head.path.unwrap_or("/").split_once('?') {
            Some((path, query)) => (path, query),
            None => (head.path.unwrap_or("/"), ""),
        };
        let request = Request {
            method: head.method.unwrap_or(""),
            path,
            query,
            headers: head.headers,
            body: match frame.body {
                Body::Plain(length) => Cow::Borrowed(&input[frame.head..frame.head + length]),
                Body::Decoded(ref body, _) => Cow::Borrowed(body.as_slice()),
            },
        };
        let last = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
            || head.version == Some(0);
        let turn = service.turn(&request, line).await;
        let used = frame.head
            + match frame.body {
                Body::Plain(length) => length,
                Body::Decoded(_, length) => length,
            };
        input.drain(..used);

        if let Some(pause) = turn.pause {
            tokio::select! {
                () = pause => {}
                () = gone(&mut wire, &mut input) => return Ok(()),
            }
        }
        let response = match turn.ending {
            Ending::Answer(response) => response,
            Ending::AnswerThenClose(response, after) => {
                close_at = Some(Instant::now() + after);
                response
            }
            Ending::AnswerThenCloseAtReuse(response, doom) => {
                doomed = doom;
                response
            }
            Ending::HalfAnswer(response) => {
                output.clear();
                response.write_head(&mut output);
                output.extend_from_slice(&response.body[..response.body.len() / 2]);
                wire.write_all(&output).await?;
                return wire.flush().await;
            }
            Ending::Drip(response, interval) => {
                output.clear();
                response.write_head(&mut output);
                output.extend_from_slice(&response.body);
                let drip = async {
                    for byte in &output {
                        wire.write_all(&[*byte]).await?;
                        wire.flush().await?;
                        sleep(interval).await;
                    }
                    io::Result::Ok(())
                };
                drip.await?;
                continue;
            }
            Ending::Silence => {
                gone(&mut wire, &mut input).await;
                return Ok(());
            }
            Ending::Close => return Ok(()),
            Ending::Reset => return reset(&wire),
        };
        output.clear();
        response.write_head(&mut output);
        if response.body.len() > 64 << 10 {
            // A huge body is not worth copying, and its buffer not worth keeping.
            wire.write_all(&output).await?;
            wire.write_all(&response.body).await?;
        } else {
            output.extend_from_slice(&response.body);
            wire.write_all(&output).await?;
        }
        // Nothing on plain TCP; on TLS what the session still holds.
        wire.flush().await?;
        if last {
            return wire.shutdown().await;
        }
    }
}

/// Closing with a linger of zero sends RST in place of FIN. It is also what the kernel does when a socket is closed
/// with bytes unread, so that it stands for a server that died before it read them, over TLS too.
fn reset<W: Wire>(wire: &W) -> io::Result<()> {
    wire.tcp().set_zero_linger()
}

/// Ends when the peer is gone. What it sends in the meantime is kept, up to a limit.
async fn gone<W: Wire>(wire: &mut W, input: &mut Vec<u8>) {
    while input.len() < MAX_BODY {
        match wire.read_buf(input).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}

fn request_line(input: &[u8]) -> Option<(&str, &str)> {
    let end = input.iter().position(|byte| *byte == b'\r')?;
    let mut words = std::str::from_utf8(&input[..end]).ok()?.split(' ');
    Some((words.next()?, words.next()?))
}

struct Frame {
    head: usize,
    body: Body,
}

enum Body {
    Plain(usize),
    /// A chunked body, decoded, and the bytes that it took on the wire.
    Decoded(Vec<u8>, usize),
}

enum Framing {
    Whole(Frame),
    Partial,
    WantsContinue,
    Broken(String),
}

/// Whether a whole request lies in the buffer. The head is parsed again by the caller, which is cheaper than to own it.
fn frame(input: &[u8]) -> Framing {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(input) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if input.len() < MAX_HEAD => return Framing::Partial,
        Ok(httparse::Status::Partial) => return Framing::Broken("head too large".into()),
        Err(error) => return Framing::Broken(format!("not HTTP/1.1: {error}")),
    };
    let mut length = 0;
    let mut wants_continue = false;
    for header in request.headers.iter() {
        let value = std::str::from_utf8(header.value).unwrap_or("").trim();
        if header.name.eq_ignore_ascii_case("content-length") {
            match value.parse() {
                Ok(n) if n <= MAX_BODY => length = n,
                _ => return Framing::Broken(format!("content-length {value}")),
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return match dechunk(&input[head..]) {
                Ok(Some((body, used))) => Framing::Whole(Frame { head, body: Body::Decoded(body, used) }),
                Ok(None) if input.len() < head + MAX_BODY => Framing::Partial,
                _ => Framing::Broken("chunked body that cannot be read".into()),
            };
        } else if header.name.eq_ignore_ascii_case("expect") {
            wants_continue = true;
        }
    }
    if input.len() - head >= length {
        Framing::Whole(Frame { head, body: Body::Plain(length) })
    } else if wants_continue {
        Framing::WantsContinue
    } else {
        Framing::Partial
    }
}

fn dechunk(input: &[u8]) -> Result<Option<(Vec<u8>, usize)>, httparse::InvalidChunkSize> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let (skip, size) = match httparse::parse_chunk_size(&input[at..])? {
            httparse::Status::Complete((skip, size)) => (skip, size as usize),
            httparse::Status::Partial => return Ok(None),
        };
        let start = at + skip;
        if size > MAX_BODY || body.len() + size > MAX_BODY {
            return Err(httparse::InvalidChunkSize);
        }
        // Trailers are not supported: nobody who calls an OTP vendor sends any.
        let Some(chunk) = input.get(start..start + size + 2) else {
            return Ok(None);
        };
        if size == 0 {
            return Ok(Some((body, start + 2)));
        }
        body.extend_from_slice(&chunk[..size]);
        at = start + size + 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_decoding() {
        assert_eq!(percent_decode("a%2Fb+c%", true), "a/b c%");
        assert_eq!(percent_decode("a+b", false), "a+b");
        let pairs: Vec<_> = query_pairs("mid=M%201&orderId=&x").collect();
        assert_eq!(pairs[0], ("mid".into(), "M 1".into()));
        assert_eq!(pairs.len(), 3);
    }

    #[test]
    fn chunked_bodies() {
        let whole = b"4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\nGET";
        let (body, used) = dechunk(whole).unwrap().unwrap();
        assert_eq!((body.as_slice(), used), (&b"Wikipedia"[..], whole.len() - 3));
        assert!(dechunk(&whole[..12]).unwrap().is_none());
    }
}
