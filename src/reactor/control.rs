//! What comes from the operator while the loop turns: signals, a reload, the end.

use std::sync::Arc;

use signal_hook::consts::SIGHUP;

use super::{Exit, Reactor, SHUTDOWN_TIME};
use crate::hub::effects::Input;
use crate::session::ConnId;

impl Reactor {
    pub(super) fn signals(&mut self) {
        let pending: Vec<i32> = self.signals.pending().collect();
        for signal in pending {
            match signal {
                SIGHUP => self.reload(),
                _ if self.ending.is_some() => {
                    log::warn!("a second signal: ending at once");
                    self.stop = Some(Exit::AtOnce);
                }
                _ => self.shut_down(),
            }
        }
    }

    pub(super) fn reload(&mut self) {
        self.service.reloading();
        match (self.reload)(&self.config) {
            Ok((config, tls)) => {
                self.hasher.set_params(config.argon2());
                self.limits = config.limits();
                self.tls = Arc::new(tls);
                self.handle(Input::Reloaded(config.settings()));
                self.config = config;
                log::info!("configuration and certificates were read anew");
            }
            Err(why) => log::error!("the old configuration and certificates stay: {why}"),
        }
        self.execute();
        self.service.ready("accepting connections");
    }

    /// Begins the end: no new connections, what has arrived is answered, everybody is told.
    pub(super) fn shut_down(&mut self) {
        if self.ending.is_some() {
            return;
        }
        log::info!("shutting down");
        self.service.stopping();
        self.ending = Some(self.now.monotonic + SHUTDOWN_TIME);
        self.listeners.clear();
        self.handle(Input::ShuttingDown);
        let open: Vec<ConnId> = self.slots.iter().filter_map(|slot| slot.conn.as_deref()).map(|conn| conn.id).collect();
        for id in open {
            // What has arrived counts as read; nothing more does.
            self.serve(id);
            let Some(conn) = self.conn_mut(id) else { continue };
            if conn.is_strange() {
                self.free(id);
            } else if !conn.is_closing() {
                conn.ended = true;
                self.make_ready(id);
            }
        }
    }
}
