//! tokio-postgres, for test_clients.py, as python_clients.py has the clients of Python: rust-client URL

use std::{
    pin::pin,
    time::{Duration, SystemTime},
};

use futures_util::TryStreamExt;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    sync::mpsc::{self, UnboundedReceiver},
    time::timeout,
};
use tokio_postgres::{AsyncMessage, Client, Error, GenericClient, NoTls, Row};
use uuid::Uuid;

const REFUSED: &str = "SELECT * FROM otp.otp_send('sandbox', '{\"mobile\": 5}')";
const TIMEOUT: Duration = Duration::from_secs(1);

struct Program {
    client: Client,
    listener: Client,
    notifications: UnboundedReceiver<String>,
}

async fn connect(url: &str) -> Result<(Client, UnboundedReceiver<String>), Error> {
    let (notify, notifications) = mpsc::unbounded_channel();
    // docs
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    // Whoever polls the connection hears what is announced.
    let mut messages = futures_util::stream::poll_fn(move |context| connection.poll_message(context));
    tokio::spawn(async move {
        while let Ok(Some(message)) = messages.try_next().await {
            if let AsyncMessage::Notification(heard) = message {
                let _ = notify.send(heard.payload().to_owned());
            }
        }
    });
    // end
    Ok((client, notifications))
}

async fn send(client: &impl GenericClient, provider: &str, mobile: &str, key: &str) -> Result<Row, Error> {
    // docs
    // An interval has no type here: its seconds are a number.
    let send = "SELECT *, extract(epoch FROM retry_after)::float8 AS seconds FROM otp.otp_send($1, $2, $3)";
    let sent = client.query_one(send, &[&provider, &json!({ "mobile": mobile }), &key]).await?;
    // end
    Ok(sent)
}

async fn verify(client: &impl GenericClient, id: Uuid, code: &str) -> Result<(String, i32), Error> {
    // docs
    let verify = "SELECT outcome, attempts_left FROM otp.otp_verify($1::uuid, $2)";
    let checked = client.query_one(verify, &[&id, &code]).await?;
    let (outcome, left): (String, i32) = (checked.get(0), checked.get(1));
    // end
    Ok((outcome, left))
}

impl Program {
    async fn answer(&mut self, said: &[&str]) -> Result<Value, Error> {
        let uuid = |text: &str| Uuid::parse_str(text).expect("an id");
        match *said {
            ["version"] => Ok(json!(version())),
            ["send", provider, mobile, key] => Ok(described(&send(&self.client, provider, mobile, key).await?)),
            ["verify", id, code] => Ok(json!(verify(&self.client, uuid(id), code).await?)),
            ["rolled_back", id, code] => {
                let transaction = self.client.transaction().await?;
                let (outcome, _) = verify(&transaction, uuid(id), code).await?;
                transaction.rollback().await?;
                Ok(json!(outcome))
            }
            ["enqueue", mobile, end] => {
                let enqueue = "SELECT verification_id FROM otp.otp_enqueue('sandbox', $1)";
                let transaction = self.client.transaction().await?;
                let id: Uuid = transaction.query_one(enqueue, &[&json!({ "mobile": mobile })]).await?.get(0);
                if end == "commit" {
                    transaction.commit().await?
                } else {
                    transaction.rollback().await?
                }
                Ok(json!(id.to_string()))
            }
            ["wait", id] => {
                let wait = "SELECT outcome FROM otp_gateway.wait($1, $2::text::interval)";
                Ok(json!(self.client.query_one(wait, &[&uuid(id), &"20s"]).await?.get::<_, String>(0)))
            }
            ["refused"] => self.client.query_one(REFUSED, &[]).await.map(|row| described(&row)),
            ["cancel", provider, mobile, key] => {
                let token = self.client.cancel_token();
                let mut sent = pin!(send(&self.client, provider, mobile, key));
                match timeout(TIMEOUT, &mut sent).await {
                    Ok(sent) => Ok(described(&sent?)),
                    Err(_) => {
                        token.cancel_query(NoTls).await?;
                        Ok(described(&sent.await?))
                    }
                }
            }
            ["late", provider, mobile, key] => {
                let transaction = self.client.transaction().await?;
                transaction.execute("SET LOCAL statement_timeout = '1s'", &[]).await?;
                Ok(described(&send(&transaction, provider, mobile, key).await?))
            }
            ["listen"] => {
                let listener = &self.listener;
                // docs
                let channel: String = listener.query_one("SELECT otp_gateway.channel()", &[]).await?.get(0);
                listener.batch_execute(&format!("LISTEN {channel}")).await?;
                // end
                Ok(Value::Null)
            }
            ["heard", seconds] => {
                let seconds = Duration::from_secs(seconds.parse().expect("seconds"));
                Ok(json!(
                    timeout(seconds, self.notifications.recv()).await.ok().flatten().into_iter().collect::<Vec<_>>()
                ))
            }
            _ => panic!("{said:?}"),
        }
    }
}

fn described(row: &Row) -> Value {
    let mut described = Map::new();
    for (at, column) in row.columns().iter().enumerate() {
        let name = column.name();
        let pair = match column.type_().name() {
            "uuid" => row.get::<_, Option<Uuid>>(at).map(|id| ("Uuid", id.to_string())),
            "text" => row.get::<_, Option<String>>(at).map(|text| ("String", text)),
            "bool" => row.get::<_, Option<bool>>(at).map(|is| ("bool", is.to_string())),
            "int4" => row.get::<_, Option<i32>>(at).map(|number| ("i32", number.to_string())),
            "jsonb" => row.get::<_, Option<Value>>(at).map(|json| ("Value", json.to_string())),
            "timestamptz" => row.get::<_, Option<SystemTime>>(at).map(|time| {
                let since = time.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
                ("SystemTime", since.as_millis().to_string())
            }),
            "interval" => row.get::<_, Option<f64>>("seconds").map(|seconds| ("f64", seconds.to_string())),
            _ => continue,
        };
        described.insert(name.to_owned(), json!(pair));
    }
    Value::Object(described)
}

fn told(error: &Error) -> Value {
    // docs
    let database = error.as_db_error();
    let (state, detail) = (error.code(), database.and_then(|error| error.detail()));
    let hint = database.and_then(|error| error.hint());
    // end
    let message = database.map_or_else(|| error.to_string(), |error| error.message().to_owned());
    json!({"class": "tokio_postgres::Error", "message": message, "sqlstate": state.map(|state| state.code()),
        "detail": detail, "hint": hint})
}

/// Of tokio-postgres, as the lock file has it.
fn version() -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let after = lock.split("name = \"tokio-postgres\"\nversion = \"").nth(1).expect("it is there");
    after.split('"').next().expect("a version")
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let url = std::env::args().nth(1).expect("a URL");
    let ((client, _), (listener, notifications)) = (connect(&url).await?, connect(&url).await?);
    let mut program = Program { client, listener, notifications };
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let answer = match program.answer(&line.split('\t').collect::<Vec<_>>()).await {
            Ok(value) => json!({ "value": value }),
            Err(error) => json!({ "error": told(&error) }),
        };
        println!("{answer}");
    }
    Ok(())
}
