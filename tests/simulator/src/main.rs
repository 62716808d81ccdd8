//! A simulator of OTP vendors, for tests, demos and development. It is written from the vendors' pages alone
//! and shares no code with the extension: where the two disagree, one of them has misread a page.

mod clock;
mod code;
mod control;
mod dialect;
mod fault;
mod http;
mod hyperverge;
mod ideamart;
mod inbox;
mod iserveu;
mod log;
mod msg91;
mod paytm;
mod relid;
mod state;
mod strict;
mod tls;
mod twilio;
mod vendor;
mod vonage;

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;
use tokio_rustls::TlsAcceptor;

use crate::control::Control;
use crate::http::{Line, Service, serve};
use crate::state::Simulator;
use crate::vendor::{REFUSALS, prefixes};

type Failure = Box<dyn std::error::Error>;

const HELP: &str = "\
Simulates OTP vendors.

Usage: simulator [options]

  --http ADDRESS        plain HTTP                            [127.0.0.1:8801]
  --https ADDRESS       TLS                                   [127.0.0.1:8802]
  --mtls ADDRESS        TLS that requires a client certificate [127.0.0.1:8803]
  --control ADDRESS     inbox, log, faults, clock; plain HTTP  [127.0.0.1:8800]
  --tls-dir DIR         where ca.pem, client.pem, client.key go [a new one in the temporary directory]
  --ready-file FILE     written when all addresses listen: JSON {http, https, mtls, control, tls_dir, pid}
  --latency-ms N        delays every vendor answer             [0]
  --help

Port 0 picks a free port.

Each vendor lives under a prefix, its name, which is the base_url to configure. Credentials: any that are not empty. One
that contains the word `wrong` is refused in the vendor's way:
";

const HELP_ON_REQUESTS: &str = "
Requests that break a vendor's page are refused in its way, and their log entry has a `complaint`.
An Ideamart number that ends in 0000 stays registered once it was verified (E1351); others can be used again.

The control port lists what it can at GET /. A start:
  curl http://127.0.0.1:8800/inbox/ideamart/0771234567?wait=5000     the code that number was sent
  curl http://127.0.0.1:8800/log                                     what arrived
";

struct Options {
    http: String,
    https: String,
    mtls: String,
    control: String,
    tls_dir: Option<PathBuf>,
    ready_file: Option<PathBuf>,
    latency: Duration,
}

/// None if help was asked for.
fn options(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options {
        http: "127.0.0.1:8801".into(),
        https: "127.0.0.1:8802".into(),
        mtls: "127.0.0.1:8803".into(),
        control: "127.0.0.1:8800".into(),
        tls_dir: None,
        ready_file: None,
        latency: Duration::ZERO,
    };
    while let Some(argument) = arguments.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (argument, None),
        };
        if matches!(name.as_str(), "--help" | "-h") {
            return Ok(None);
        }
        let mut value = || inline.clone().or_else(|| arguments.next()).ok_or_else(|| format!("{name} needs a value"));
        match name.as_str() {
            "--http" => options.http = value()?,
            "--https" => options.https = value()?,
            "--mtls" => options.mtls = value()?,
            "--control" => options.control = value()?,
            "--tls-dir" => options.tls_dir = Some(value()?.into()),
            "--ready-file" => options.ready_file = Some(value()?.into()),
            "--latency-ms" => {
                let ms = value()?.parse();
                options.latency = Duration::from_millis(ms.map_err(|_| "--latency-ms: a number")?);
            }
            _ => return Err(format!("unknown option {name}; see --help")),
        }
    }
    Ok(Some(options))
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{HELP}");
            REFUSALS.iter().for_each(|(name, refusal)| println!("  /{name:<12}{refusal}"));
            print!("{HELP_ON_REQUESTS}");
            return ExitCode::SUCCESS;
        }
        Err(mistake) => {
            eprintln!("simulator: {mistake}");
            return ExitCode::from(2);
        }
    };
    match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("simulator: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn start(options: Options) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(options))
}

/// Returns only if it cannot start; a signal ends the process.
async fn run(options: Options) -> Result<(), Failure> {
    // Before anything can be seen of us, so that whoever sees it can end us.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let authority = tls::Authority::new()?;
    let is_temporary = options.tls_dir.is_none();
    let tls_dir =
        options.tls_dir.unwrap_or_else(|| std::env::temp_dir().join(format!("otp-simulator-{}", std::process::id())));
    authority.write_to(&tls_dir).map_err(|error| format!("cannot write to {}: {error}", tls_dir.display()))?;
    let tls_dir = fs::canonicalize(&tls_dir)?;

    let simulator = Rc::new(Simulator::new(options.latency));
    let connections = Rc::new(Cell::new(0));
    let (listener, http) = listen("--http", &options.http).await?;
    tokio::task::spawn_local(accept(listener, "http", None, simulator.clone(), connections.clone()));
    let (listener, https) = listen("--https", &options.https).await?;
    tokio::task::spawn_local(accept(
        listener,
        "https",
        Some(authority.acceptor(false)?),
        simulator.clone(),
        connections.clone(),
    ));
    let (listener, mtls) = listen("--mtls", &options.mtls).await?;
    tokio::task::spawn_local(accept(
        listener,
        "mtls",
        Some(authority.acceptor(true)?),
        simulator.clone(),
        connections.clone(),
    ));
    let (listener, control) = listen("--control", &options.control).await?;
    let control_service = Rc::new(Control(simulator));
    tokio::task::spawn_local(accept(listener, "control", None, control_service, connections));

    let dir = tls_dir.display();
    // Before it says so: who reads this finds the file.
    if let Some(path) = &options.ready_file {
        let ready = json!({
            "http": format!("http://{http}"),
            "https": format!("https://{https}"),
            "mtls": format!("https://{mtls}"),
            "control": format!("http://{control}"),
            "tls_dir": tls_dir,
            "pid": std::process::id(),
        });
        write_atomically(path, &format!("{ready}\n"))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    println!("http     http://{http} and one of {} is a base_url (with allow_plain_http 'true')", prefixes());
    println!("https    https://{https}/... the same, with ca_file '{dir}/ca.pem'");
    println!(
        "mtls     https://{mtls}/... the same, with client_cert_file '{dir}/client.pem' and client_key_file \
        '{dir}/client.key'"
    );
    println!("control  curl http://{control}/ says how to read the codes that were sent, and how to make vendors fail");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // A ready file without a simulator would mislead the next who waits for one.
    if let Some(path) = &options.ready_file {
        let _ = fs::remove_file(path);
    }
    if is_temporary {
        let _ = fs::remove_dir_all(&tls_dir);
    }
    // At once: to take down a world of a million codes in good order takes a while.
    std::process::exit(0)
}

async fn listen(option: &str, address: &str) -> Result<(TcpListener, SocketAddr), Failure> {
    let listener =
        TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {option} {address}: {error}"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

async fn accept<S: Service + Clone + 'static>(
    listener: TcpListener,
    name: &'static str,
    tls: Option<TlsAcceptor>,
    service: S,
    connections: Rc<Cell<u64>>,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, most likely: some will come back.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        connections.set(connections.get() + 1);
        let line = Line { listener: name, connection: connections.get() };
        tokio::task::spawn_local(connection(stream, tls.clone(), line, service.clone()));
    }
}

async fn connection<S: Service>(stream: TcpStream, tls: Option<TlsAcceptor>, line: Line, service: S) {
    let _ = stream.set_nodelay(true);
    // What ends a connection early is the peer's doing, or a fault's: there is nobody to tell.
    let _ = match tls {
        None => serve(stream, line, &service).await,
        Some(acceptor) => match acceptor.accept(stream).await {
            Ok(stream) => serve(stream, line, &service).await,
            Err(error) => Err(error),
        },
    };
}

fn write_atomically(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    fs::write(&new, text)?;
    fs::rename(&new, path)
}
