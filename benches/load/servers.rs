//! The servers that are measured: how each is configured, started, ended, and what it used.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bare,
    Downstream,
    Inspircd,
    Ngircd,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [Kind::Bare, Kind::Downstream, Kind::Inspircd, Kind::Ngircd];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Bare => "bare",
            Kind::Downstream => "downstream",
            Kind::Inspircd => "inspircd",
            Kind::Ngircd => "ngircd",
        }
    }

    /// Whether it is here.
    pub(crate) fn is_installed(self) -> bool {
        match self {
            Kind::Bare | Kind::Downstream => true,
            Kind::Inspircd | Kind::Ngircd => Path::new("/usr/sbin").join(self.name()).exists(),
        }
    }
}

/// A certificate of one run.
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pair {
    /// Makes one in `dir`. ECDSA on P-256, as the daemon makes its own.
    pub(crate) fn make(dir: &Path) -> Result<Pair, Failure> {
        let made = rcgen::generate_simple_self_signed(vec!["bench.test".to_owned()]).map_err(|e| e.to_string())?;
        let pair = Pair { cert: dir.join("cert.pem"), key: dir.join("key.pem") };
        fs::write(&pair.cert, made.cert.pem())?;
        fs::write(&pair.key, made.signing_key.serialize_pem())?;
        Ok(pair)
    }
}

/// A running server; killed, by its process id, when dropped.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts one in `dir`, which is its own.
    pub(crate) fn start(kind: Kind, dir: &Path, pair: &Pair) -> Result<Server, Failure> {
        let log = || fs::File::create(dir.join("log")).map(Stdio::from);
        let (cert, key) = (pair.cert.display(), pair.key.display());
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let config = dir.join("server.conf");
        let mut command = match kind {
            Kind::Bare => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg("bare").args([&pair.cert, &pair.key]).stdin(Stdio::piped()).stdout(Stdio::piped());
                let mut child = command.stderr(log()?).spawn()?;
                let mut line = String::new();
                let stdout = child.stdout.take().ok_or("no output")?;
                BufReader::new(stdout).read_line(&mut line)?;
                let port: u16 = line.trim().parse().map_err(|_| "the bare server did not start")?;
                return Ok(Server { kind, address: ([127, 0, 0, 1], port).into(), child });
            }
            Kind::Downstream => {
                let text = format!(
                    "listen = [\"127.0.0.1:{port}\"]\ndata = \"{}\"\n[tls]\ncert = \"{cert}\"\nkey = \"{key}\"\n\
                     [accounts]\nsessions_per_account = 1000\n[accounts.argon2]\nmemory_kib = 8192\niterations = 1\n\
                     [limits]\nmessages_per_second = 0\nregistrations_per_hour = 0\nlogins_per_minute = 0\n\
                     connections_per_address = 0\nconnections = 0\n",
                    dir.join("data").display(),
                );
                fs::write(&config, text)?;
                let daemon = std::env::var("DOWNSTREAM");
                let mut command = tied(daemon.as_deref().unwrap_or(env!("CARGO_BIN_EXE_downstream")));
                command.arg("--config").arg(&config).env("RUST_LOG", "warn");
                command
            }
            Kind::Inspircd => {
                let text = format!(
                    r#"<config format="xml">
<server name="bench.test" description="bench" network="bench" id="001">
<admin name="bench" nick="bench" email="bench@bench.test">
<module name="ssl_gnutls">
<sslprofile name="tls" provider="gnutls" certfile="{cert}" keyfile="{key}">
<bind address="127.0.0.1" port="{port}" type="clients" ssl="tls">
<connect name="all" allow="*" timeout="60" pingfreq="3600" hardsendq="64M" softsendq="64M" recvq="1M" threshold="1000000" commandrate="1000000" fakelag="no" localmax="100000" globalmax="100000" limit="100000" maxchans="100" maxconnwarn="no" resolvehostnames="no" useident="no">
<performance netbuffersize="65534" somaxconn="1024" softlimit="100000" clonesonconnect="no" quietbursts="yes">
<options splitwhois="no" exemptchanops="" announceinvites="dynamic">
<security hidewhois="" runasuser="" runasgroup="">
<log method="file" type="* -USERINPUT -USEROUTPUT" level="default" target="{log}">
"#,
                    log = dir.join("server.log").display(),
                );
                fs::write(&config, text)?;
                let mut command = tied("/usr/sbin/inspircd");
                command.args(["--runasroot", "--nofork", "--nopid", "--config"]).arg(&config);
                command
            }
            Kind::Ngircd => {
                let text = format!(
                    "[Global]\nName = bench.test\nInfo = bench\nListen = 127.0.0.1\nMotdPhrase = bench\nPidFile =\n\
                     ServerUID = root\nServerGID = root\n\
                     [Limits]\nMaxConnections = 0\nMaxConnectionsIP = 0\nMaxJoins = 0\nMaxPenaltyTime = 0\n\
                     PingTimeout = 3600\nPongTimeout = 3600\n\
                     [Options]\nDNS = no\nIdent = no\nPAM = no\nRequireAuthPing = no\n\
                     [SSL]\nCertFile = {cert}\nKeyFile = {key}\nPorts = {port}\n",
                );
                fs::write(&config, text)?;
                let mut command = tied("/usr/sbin/ngircd");
                command.arg("-n").arg("-f").arg(&config);
                command
            }
        };
        let child = command.stdin(Stdio::null()).stdout(log()?).stderr(log()?).spawn()?;
        let mut server = Server { kind, address: ([127, 0, 0, 1], port).into(), child };
        let begun = Instant::now();
        while TcpStream::connect(server.address).is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("{} ended: {status}; see {}", kind.name(), dir.display()).into());
            }
            if begun.elapsed() > Duration::from_secs(20) {
                return Err(format!("{} does not listen", kind.name()).into());
            }
            // Servers of others say nothing when they listen: they are asked, for 20 s at most.
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU time that all threads used so far, user and system.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        cpu(&format!("/proc/{}", self.id()))
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> Result<u64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().map_err(|_| "VmRSS is no number")?;
        Ok(kib * 1024)
    }
}

/// A command that the kernel ends when this program is killed, where util-linux is there to say so.
fn tied(program: &str) -> Command {
    let setpriv = "/usr/bin/setpriv";
    if !Path::new(setpriv).exists() {
        return Command::new(program);
    }
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL", program]);
    command
}

impl Drop for Server {
    fn drop(&mut self) {
        // What is measured is over, and durable servers need no farewell.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::io::stdout().flush();
    }
}

/// CPU time of a process by its directory in /proc: nanoseconds of each living thread (`schedstat`), or
/// clock ticks where the kernel does not count those.
pub(crate) fn cpu(process: &str) -> Result<Duration, Failure> {
    let mut sum: u64 = 0;
    for task in fs::read_dir(format!("{process}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or(0);
    }
    if sum > 0 {
        return Ok(Duration::from_nanos(sum));
    }
    let stat = fs::read_to_string(format!("{process}/stat"))?;
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}
