//! A real TLS client program as a link: lines to its standard input, lines from its standard output.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};

use super::{DEADLINE, Ended, Link};

/// A running client program; killed when dropped.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    complaints: Arc<Mutex<Vec<u8>>>,
}

impl Program {
    /// Starts it. A program that is not installed fails the test.
    pub(crate) fn start(mut command: Command) -> Program {
        let name = format!("{:?}", command.get_program());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| {
            panic!("cannot start {name}: {e}; the tests need it (Debian: apt install openssl ncat)");
        });
        let input = child.stdin.take();
        let (tell, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.split(b'\n') {
                let Ok(line) = line else { return };
                if tell.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
            }
        });
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let (mut errors, kept) = (child.stderr.take().unwrap(), Arc::clone(&complaints));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = errors.read(&mut buffer) {
                kept.lock().unwrap().extend_from_slice(buffer.get(..n).unwrap_or_default());
            }
        });
        Program { name, child, input, lines, complaints }
    }

    /// What it wrote on standard error.
    pub(crate) fn complaints(&self) -> String {
        String::from_utf8_lossy(&self.complaints.lock().unwrap()).into_owned()
    }
}

impl Link for Program {
    fn send(&mut self, bytes: &[u8]) {
        let input = self.input.as_mut().unwrap();
        let sent = input.write_all(bytes).and_then(|()| input.flush());
        sent.unwrap_or_else(|e| panic!("{} takes no input: {e}\n{}", self.name, self.complaints()));
    }

    fn line(&mut self) -> Result<String, Ended> {
        self.lines.recv_timeout(DEADLINE).map_err(|e| match e {
            RecvTimeoutError::Timeout => Ended::Silent,
            // What the program saw of the end is its own affair; it went away.
            RecvTimeoutError::Disconnected => Ended::Cleanly,
        })
    }

    fn half_close(&mut self) {
        self.input = None;
    }

    fn close(&mut self) {
        self.input = None;
        let _ = self.child.kill();
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
