use std::{
    collections::HashMap,
    fs,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use reqwest::{Certificate, Client, Identity, redirect, retry, tls};

use crate::Route;

/// One client, and so one pool of warm connections, for each way to speak TLS.
#[derive(Default)]
pub struct Clients(Mutex<HashMap<Key, Client>>);

#[derive(PartialEq, Eq, Hash)]
struct Key {
    connect_timeout: Duration,
    files: [Option<(String, Option<SystemTime>)>; 3],
}

impl Clients {
    /// The client for a route; made anew when a certificate file has changed. The error is for the user.
    pub fn get(&self, route: &Route) -> Result<Client, String> {
        let file = |path: &Option<String>| {
            path.as_ref().map(|path| (path.clone(), fs::metadata(path).and_then(|meta| meta.modified()).ok()))
        };
        let key = Key {
            // Ends before the whole does, also after the longest wait for a place: it is the connect that times out then,
            // and `unreachable` can be told.
            connect_timeout: route.connect_timeout.min(route.timeout.mul_f32(0.45)),
            files: [file(&route.ca_file), file(&route.client_cert_file), file(&route.client_key_file)],
        };
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = build(route, key.connect_timeout)?;
        clients.retain(|other, _| other.files.iter().zip(&key.files).all(|(a, b)| !replaces(a, b)));
        clients.insert(key, client.clone());
        Ok(client)
    }
}

/// The same file, of another time.
fn replaces(old: &Option<(String, Option<SystemTime>)>, new: &Option<(String, Option<SystemTime>)>) -> bool {
    matches!((old, new), (Some(old), Some(new)) if old.0 == new.0 && old.1 != new.1)
}

fn build(route: &Route, connect_timeout: Duration) -> Result<Client, String> {
    let mut builder = Client::builder()
        .connect_timeout(connect_timeout)
        // "never repeat a request whose bytes may have left", nor take one elsewhere.
        .retry(retry::never())
        .redirect(redirect::Policy::none())
        .no_proxy()
        .http1_only()
        .tcp_nodelay(true)
        .pool_idle_timeout(Duration::from_secs(90))
        .tls_version_min(tls::Version::TLS_1_2);
    if let Some(path) = &route.ca_file {
        let pem = read("ca_file", path)?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .ok()
            .filter(|certificates| !certificates.is_empty())
            .ok_or_else(|| format!("ca_file {path} holds no certificate in PEM form"))?;
        builder = builder.tls_certs_only(certificates);
    }
    if let (Some(certificate), Some(key)) = (&route.client_cert_file, &route.client_key_file) {
        let mut pem = read("client_cert_file", certificate)?;
        pem.push(b'\n');
        pem.extend(read("client_key_file", key)?);
        let identity = Identity::from_pem(&pem)
            .map_err(|_| format!("{certificate} and {key} are no certificate and key in PEM form"))?;
        builder = builder.identity(identity);
    }
    builder.build().map_err(|_| "the TLS settings of the server do not fit together".to_owned())
}

fn read(option: &str, path: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{option} {path} cannot be read: {}", error.kind()))
}
