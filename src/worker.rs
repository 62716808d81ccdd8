//! The worker of one database: the loop on the main thread that joins mailbox, ledger and courier. It sleeps on its
//! latch and on the courier's bell, and on nothing else: idle means asleep.

mod desk;
mod expiry;
mod process;
mod queue;
mod recovery;

use desk::Desk;
use pgrx::pg_sys;

use crate::{
    ledger::{Failure, Ledger},
    roster::{self, Stage},
};

/// The main function of a worker; its argument is the OID of the database.
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn otp_gateway_worker_main(argument: pg_sys::Datum) {
    let database = pg_sys::Oid::from(argument.value() as u32);
    process::set_up(database);
    let ledger = match Ledger::open() {
        Ok(Some(ledger)) => ledger,
        Err(Failure::Gone) => {
            desk::turn_away(
                database,
                "the extension is not committed in this database",
                "COMMIT the transaction with CREATE EXTENSION otp_gateway first.",
            );
            return process::leave();
        }
        Ok(None) => {
            desk::turn_away(
                database,
                "the extension's tables in this database are of another version than the library",
                "ALTER EXTENSION otp_gateway UPDATE; and restart the server if a new library was installed.",
            );
            return process::leave();
        }
        Err(failure) => pgrx::error!("otp_gateway: the worker cannot read its tables: {failure:?}"),
    };
    let mut desk = Desk::open(database, ledger);
    roster::set(database, Stage::Running);
    // It waits for this before it starts the next.
    roster::wake_launcher();
    desk.recover();
    loop {
        process::reset_latch();
        if process::must_end() || roster::asked_to_leave(database) || desk.is_gone() {
            break;
        }
        if process::reload_settings() {
            desk.settings_reloaded();
        }
        if !desk.work() {
            process::sleep(desk.bell(), desk.next_due());
        }
    }
    // What could not be put down, and the queue, are for another worker, which the launcher starts; unless somebody wants
    // the database to themselves, and asks for a worker afterwards.
    if desk.close() || roster::asked_to_leave(database) {
        process::leave();
    }
}
