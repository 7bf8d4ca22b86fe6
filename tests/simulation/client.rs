//! What clients type: every command, with arguments that make sense and some that do not.

use std::collections::BTreeMap;

use downstream::protocol::{FileId, LineFault};
use downstream::session::ConnId;

use super::oracle::{Given, Kind, Oracle};
use super::rng::Rng;

/// A line on its way to the core, and what must come of it.
pub struct Typed {
    pub line: Result<String, LineFault>,
    pub given: Option<Given>,
}

/// What the people at the keyboards know.
pub struct People {
    /// Names in use; an erased one is replaced.
    pub names: Vec<String>,
    /// Passwords that may be right, by name.
    pub secrets: BTreeMap<String, Vec<String>>,
    pub rooms: Vec<String>,
    posts: Vec<(String, String, String)>,
    /// How far the chunks that were typed go.
    pub typed_chunks: BTreeMap<FileId, u64>,
    /// Records that somebody has put.
    pub records: Vec<String>,
    /// Of a hundred lines, those of programs.
    pub programs: usize,
    count: u64,
    /// Bodies may be so long.
    pub body_max: usize,
}

impl People {
    pub fn new(accounts: usize, rooms: usize, body_max: usize, programs: usize) -> People {
        People {
            names: (0..accounts).map(|n| format!("u{n}")).collect(),
            secrets: BTreeMap::new(),
            rooms: (0..rooms).map(|n| format!("#r{n}")).collect(),
            posts: Vec::new(),
            typed_chunks: BTreeMap::new(),
            records: Vec::new(),
            programs,
            count: 0,
            body_max,
        }
    }

    pub fn number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    pub fn name(&self, rng: &mut Rng) -> String {
        match rng.below(40) {
            0 => "nobody".to_owned(),
            _ => rng.pick(&self.names).cloned().unwrap_or_default(),
        }
    }

    pub fn room(&self, rng: &mut Rng) -> String {
        // Some rooms are busier than others.
        let busy = rng.below(self.rooms.len()).min(rng.below(self.rooms.len()));
        self.rooms.get(busy).cloned().unwrap_or_default()
    }

    pub fn target(&self, rng: &mut Rng) -> String {
        if rng.percent(65) { self.room(rng) } else { self.name(rng) }
    }

    /// A body that no other message has.
    fn body(&mut self, rng: &mut Rng) -> String {
        let n = self.number();
        let len = match rng.below(100) {
            0..70 => rng.below(80),
            70..93 => rng.below(4000),
            93..98 => rng.below(30_000),
            _ => rng.below(self.body_max),
        };
        let len = len.min(self.body_max);
        match rng.below(10) {
            0 => format!("e2e:{}{n:012}", "0".repeat(len / 4 * 4)),
            1 => format!(":{n} {}", "ä ".repeat(len / 3)),
            2 => format!("  {n}{}", " ".repeat(len.min(200))),
            _ => format!("m{n} {}", "x".repeat(len)),
        }
    }

    fn password(&mut self, rng: &mut Rng, name: &str) -> String {
        let n = self.number();
        let password = format!("secret-{}-{n}", rng.below(1000));
        self.secrets.entry(name.to_owned()).or_default().push(password.clone());
        password
    }

    /// A password, or a token, that is often the right one.
    fn secret(&self, rng: &mut Rng, name: &str, oracle: &Oracle) -> String {
        let known = self.secrets.get(name).map_or(&[][..], Vec::as_slice);
        let account = oracle.model.accounts.values().find(|account| account.name == name);
        let right = account.and_then(|account| account.passwords.last()).map(|(_, password)| password.clone());
        match rng.below(20) {
            0 => "wrong-password".to_owned(),
            1 => "token:none".to_owned(),
            2 => String::new(),
            3..7 => rng.pick(known).cloned().unwrap_or_default(),
            _ => right.or_else(|| known.last().cloned()).unwrap_or_default(),
        }
    }

    fn word(rng: &mut Rng) -> String {
        const WORDS: [&str; 9] = ["", "\"", "a,b", "#", "#bad room", "UPPER", "limit=0", "after=x", "\u{1b}[31m"];
        (*rng.pick(&WORDS).unwrap_or(&"")).to_owned()
    }

    /// The next line of a connection.
    pub fn type_line(&mut self, rng: &mut Rng, conn: ConnId, first: bool, oracle: &Oracle) -> Typed {
        let login = oracle.view(conn).and_then(|view| view.login.as_ref());
        let me = login.map(|login| login.name.clone());
        let fault = |fault| Typed { line: Err(fault), given: Some(given("*", Kind::Other)) };
        match rng.below(400) {
            0 if !first => return fault(LineFault::TooLong(4096)),
            1 => return fault(LineFault::Nul),
            2 => return fault(LineFault::BareCr),
            3 => return fault(LineFault::NotUtf8),
            4 => return Typed { line: Ok(" ".repeat(rng.below(3))), given: None },
            5 => return plain("  /login me secret", "msg"),
            6 => return plain("/nonsense@x 1 2", "nonsense@x"),
            7 => return plain("/1nonsense", "*"),
            8 => return plain("/msg@bad/label bob x", "msg"),
            9 => return plain(&format!("/{} {}", "x".repeat(40), "y"), "*"),
            10 => return plain(&format!("/join \"{}", Self::word(rng)), "join"),
            _ => {}
        }
        match me {
            None if rng.percent(85) => self.enter(rng, oracle),
            None => self.command(rng, "nobody", oracle),
            Some(me) if rng.one_in(7) => self.transfer(rng, &me, oracle),
            Some(me) if rng.percent(self.programs) => self.exchange(rng, &me, oracle),
            Some(me) => match rng.below(100) {
                0..52 => self.speak(rng, &me),
                _ => self.command(rng, &me, oracle),
            },
        }
    }

    fn enter(&mut self, rng: &mut Rng, oracle: &Oracle) -> Typed {
        let name = self.name(rng);
        if !self.secrets.contains_key(&name) || rng.one_in(60) {
            let password = self.password(rng, &name);
            let kind = Kind::Register { user: name.clone() };
            return self.labelled("register", &format!(" {name} {password}"), kind);
        }
        let secret = self.secret(rng, &name, oracle);
        let verb = if rng.one_in(3) { "takeover" } else { "login" };
        let rest = if secret.is_empty() { format!(" {name}") } else { format!(" {name} {secret}") };
        self.labelled(verb, &rest, Kind::Enter { user: name, secret })
    }

    /// A login of this account by its last password.
    pub fn enter_as(&mut self, name: &str, secret: &str) -> Typed {
        let kind = Kind::Enter { user: name.to_owned(), secret: secret.to_owned() };
        self.labelled("takeover", &format!(" {name} {secret}"), kind)
    }

    pub fn labelled(&mut self, verb: &str, rest: &str, kind: Kind) -> Typed {
        let head = format!("{verb}@L{}", self.number());
        Typed { line: Ok(format!("/{head}{rest}")), given: Some(given(&head, kind)) }
    }

    fn speak(&mut self, rng: &mut Rng, me: &str) -> Typed {
        let body = self.body(rng);
        match rng.below(20) {
            0..10 => {
                let target = self.target(rng);
                let rest = format!(" {target} {body}");
                self.labelled("msg", &rest, Kind::Msg { targets: vec![target], body })
            }
            10..12 => {
                let mut targets: Vec<String> = (0..rng.within(2, 6)).map(|_| self.target(rng)).collect();
                if rng.one_in(5) {
                    targets.push("not/a/name".to_owned());
                }
                targets.sort();
                targets.dedup();
                let rest = format!(" {} {body}", targets.join(","));
                self.labelled("msg", &rest, Kind::Msg { targets, body })
            }
            12..16 => {
                let (line, body) = match body.strip_prefix(' ') {
                    Some(_) => (format!("//{body}"), format!("/{body}")),
                    None => (body.clone(), body),
                };
                Typed { line: Ok(line), given: Some(given("msg", Kind::Msg { targets: Vec::new(), body })) }
            }
            _ => {
                let again = rng.percent(40).then(|| self.posts.iter().rev().take(20).cloned().collect::<Vec<_>>());
                let (target, key, body) = match again.and_then(|posts| rng.pick(&posts).cloned()) {
                    Some((target, key, old)) => (target, key, if rng.one_in(8) { body } else { old }),
                    None => (self.target(rng), format!("key-{me}-{:04}", self.number()), body),
                };
                self.posts.push((target.clone(), key.clone(), body.clone()));
                if self.posts.len() > 200 {
                    self.posts.drain(..100);
                }
                let rest = format!(" {target} {key} {body}");
                self.labelled("post", &rest, Kind::Post { target, body })
            }
        }
    }

    fn command(&mut self, rng: &mut Rng, me: &str, oracle: &Oracle) -> Typed {
        let (room, name) = (self.room(rng), self.name(rng));
        let other = |text: String| (text, Kind::Other);
        let long = format!(" {}", "because ".repeat(10_000));
        let reason = if rng.one_in(40) { &*long } else { *rng.pick(&["", " because of this"]).unwrap_or(&"") };
        let (text, kind) = match rng.weighted(&WEIGHTS) {
            0 => other(format!("join {room}")),
            1 => other(format!("leave {room}{reason}")),
            2 => {
                let kind = ["", " private", " e2e", " private e2e"];
                let topic = if rng.one_in(3) { " :on what it is" } else { "" };
                other(format!("create {room}{}{topic}", rng.pick(&kind).unwrap_or(&"")))
            }
            3 => other(format!("kick {room} {name}{reason}")),
            4 => other(format!("ban {room} {name}{reason}")),
            5 => other(format!("unban {room} {name}")),
            6 => other(format!("invite {room} {name}")),
            7 => other(format!("{} {room} {name}", if rng.one_in(2) { "op" } else { "deop" })),
            8 => other(format!("topic {room}{reason}")),
            9 => ("fetch".to_owned(), Kind::FetchUnread),
            10 => {
                let id = rng.below(60);
                let bound = [String::new(), format!(" after={id}"), format!(" before={id}")];
                let limit = if rng.one_in(2) { format!(" limit={}", rng.within(1, 300)) } else { String::new() };
                let bound = rng.pick(&bound).cloned().unwrap_or_default();
                (format!("fetch {}{bound}{limit}", self.target(rng)), Kind::FetchPage)
            }
            11 => other(format!("unread{}", if rng.one_in(3) { " all" } else { "" })),
            12 => other(format!("ack {} {}", self.target(rng), rng.below(80))),
            13 => {
                let manual = rng.one_in(3);
                (format!("ack {}", if manual { "manual" } else { "auto" }), Kind::AckMode { manual })
            }
            14 => {
                let names = vec![name, self.name(rng)];
                (format!("watch {}", names.join(" ")), Kind::Watch(names))
            }
            15 => (format!("unwatch {name}"), Kind::Unwatch(vec![name])),
            16 => other(format!("away{}", if rng.one_in(2) { " for lunch" } else { "" })),
            17 => other("back".to_owned()),
            18 => other(format!("typing {}", self.target(rng))),
            19 => other(format!("who {}", self.target(rng))),
            20 => other(format!("members {room}")),
            21 => other(format!("rooms{}", if rng.one_in(3) { " #r[0-3]*" } else { "" })),
            22 => other(format!("users{}", if rng.one_in(3) { " u1* after=u10" } else { "" })),
            23 => other(format!("profile {name}")),
            24 => other("profile set \"name=A B\" show=all".to_owned()),
            25 => other(if rng.one_in(2) { "token".to_owned() } else { format!("token t{}", rng.below(4)) }),
            26 => other("tokens".to_owned()),
            27 => other(format!("revoke t{}", rng.below(4))),
            28 => other((*rng.pick(&["cert add", "cert list", "cert drop"]).unwrap_or(&"cert")).to_owned()),
            29 => other(format!("receipts {}", if rng.percent(70) { "on" } else { "off" })),
            30 => other(format!("to {}", self.target(rng))),
            31 => other("ping and so on".to_owned()),
            32 => {
                other((*rng.pick(&["whoami", "version", "help", "help admin", "help x"]).unwrap_or(&"help")).to_owned())
            }
            33 => ("logout".to_owned(), Kind::Leave),
            34 => {
                let old = self.secret(rng, me, oracle);
                let new = self.password(rng, me);
                other(format!("passwd {old} {new}"))
            }
            35 => (format!("unregister {}", self.secret(rng, me, oracle)), Kind::Leave),
            36 => other("quit".to_owned()),
            37 => other(self.admin(rng, oracle)),
            38 => other(format!("join {}", Self::word(rng))),
            39 => (format!("fetch {} {}", self.target(rng), Self::word(rng)), Kind::FetchPage),
            _ => other(format!("login {name} {}", self.secret(rng, &name, oracle))),
        };
        let (verb, rest) = text.split_once(' ').map_or((text.as_str(), String::new()), |(v, r)| (v, format!(" {r}")));
        // A login where somebody is logged in is refused; where nobody is, it is one.
        let kind = match (verb, kind) {
            ("login", _) => {
                let secret = rest.trim_start().split(' ').nth(1).unwrap_or_default().to_owned();
                Kind::Enter { user: rest.trim_start().split(' ').next().unwrap_or_default().to_owned(), secret }
            }
            (_, kind) => kind,
        };
        self.labelled(verb, &rest, kind)
    }

    fn admin(&mut self, rng: &mut Rng, oracle: &Oracle) -> String {
        let name = self.name(rng);
        let banned = oracle.model.accounts.values().find(|account| account.banned).map(|account| account.name.clone());
        match rng.below(14) {
            0 => "admin users".to_owned(),
            1 => "admin sessions".to_owned(),
            2 => format!("admin kick {name} out"),
            3 if rng.one_in(3) => format!("admin ban {name}"),
            4 if rng.one_in(3) => format!("admin ban 192.0.2.{}", rng.below(30)),
            5 | 6 => format!("admin unban 192.0.2.{}", rng.below(30)),
            7 => "admin invite".to_owned(),
            8 => "admin notice hello everybody".to_owned(),
            9 => format!("admin notice to={name} hello you"),
            10 => "admin stats".to_owned(),
            11 => "admin shutdown".to_owned(),
            _ => format!("admin unban {}", banned.unwrap_or(name)),
        }
    }
}

/// How often each command of [`People::command`] comes.
const WEIGHTS: [usize; 41] = [
    90, 22, 12, 12, 5, 8, 12, 12, 8, 16, 30, 14, 16, 8, 10, 4, 6, 6, 12, 8, 6, 5, 5, 4, 3, 6, 3, 2, 3, 6, 22, 24, 8, 8,
    4, 1, 4, 14, 4, 4, 3,
];

fn given(head: &str, kind: Kind) -> Given {
    Given { head: head.to_owned(), kind, index: 0 }
}

fn plain(line: &str, head: &str) -> Typed {
    Typed { line: Ok(line.to_owned()), given: Some(given(head, Kind::Other)) }
}
