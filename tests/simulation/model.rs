//! What the store was seen to commit: who there is, who is in which room, which messages there are and
//! how far everybody has read. Kept apart from the store, from its answers alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use downstream::ops::{
    AccountId, Act, Answer, Appended, ConversationId, Destination, Op, Outcome, POST_KEY_LIFE_MS, Proof, Query,
    Refused, RoomChange, RoomInfo, Sha256,
};
use downstream::protocol::{Target, Timestamp, UserName};
use downstream::session::ConnId;

use super::exchanges::Exchanges;
use super::files::Files;

pub struct Message {
    pub id: u64,
    pub sender: AccountId,
    pub body: Arc<str>,
    pub target: Target,
    pub sender_name: UserName,
    pub time: Timestamp,
    /// It is a file, of this name.
    pub is_file: bool,
    /// The core knows of it.
    pub answered: bool,
    /// Old enough to be deleted at any time.
    pub old: bool,
}

#[derive(Default)]
pub struct Conversation {
    pub room: Option<RoomInfo>,
    /// As committed; of a direct conversation the two, erased or not.
    pub members: BTreeSet<AccountId>,
    /// The message with number `n` stands at `n - 1`.
    pub log: Vec<Message>,
}

#[derive(Default)]
pub struct Account {
    pub name: String,
    pub erased: bool,
    pub banned: bool,
    /// Each with the commit since which it holds.
    pub passwords: Vec<(u64, String)>,
    /// Hash, name and the commit that ended it.
    pub tokens: Vec<(Sha256, String, Option<u64>)>,
}

struct Post {
    target: Target,
    body: Arc<str>,
    conversation: ConversationId,
    id: u64,
    time: Timestamp,
}

/// What a commit means to those who are logged in.
pub enum News {
    /// The message at this index of the log.
    Message(ConversationId, usize),
    Left(AccountId, ConversationId),
    Old,
}

#[derive(Default)]
pub struct Model {
    /// Writes committed so far.
    pub index: u64,
    pub accounts: BTreeMap<AccountId, Account>,
    pub conversations: BTreeMap<ConversationId, Conversation>,
    pub markers: BTreeMap<(AccountId, ConversationId), u64>,
    /// Who is in which room, with its name, as the core was told. The store uses numbers and names of
    /// rooms that it has removed again, perhaps before the core hears of it.
    pub known: BTreeMap<(AccountId, ConversationId), String>,
    pub by_body: HashMap<Arc<str>, Vec<(ConversationId, usize)>>,
    posts: HashMap<(AccountId, String), Post>,
    pub exchanges: Exchanges,
    pub files: Files,
    /// Retention has deleted something: counts are not known any more.
    pub swept: bool,
}

type Checked<T> = Result<T, String>;

impl Model {
    /// A write was committed, refused or not. What it means to others goes to `news`.
    pub fn committed(
        &mut self,
        op: &Op,
        result: &Result<Outcome, Refused>,
        from: Option<ConnId>,
        passwords: &BTreeMap<[u8; 32], String>,
        news: &mut Vec<News>,
    ) -> Checked<()> {
        self.index += 1;
        let room = match op {
            Op::AddRoster { account, room, .. } => self.room_of(*account, room.as_str()),
            Op::BeginUpload { sender, target: Target::Room(room), .. } => self.room_of(sender.id, room.as_str()),
            _ => None,
        };
        let outcome = match result {
            Ok(outcome) => outcome,
            Err(refused) => {
                self.files.refused(op, *refused)?;
                return self.exchanges.refused(op, *refused, room);
            }
        };
        if let Outcome::RosterAdded(added) = outcome
            && room != Some(added.room.id)
        {
            return Err(format!("an entry in {} by a stranger", added.room.name));
        }
        self.exchanges.committed(op, outcome, from)?;
        if let Some((sender, target, name, appended)) = self.files.committed(op, outcome, room)? {
            let at = self.append(&sender, &target, &name.into(), &appended, true)?;
            news.push(News::Message(appended.conversation, at));
        }
        match (op, outcome) {
            (Op::Register { name, verifier, .. }, Outcome::Registered(id)) => {
                let password = passwords.get(&verifier.hash).cloned().unwrap_or_default();
                let account =
                    Account { name: name.to_string(), passwords: vec![(self.index, password)], ..Account::default() };
                if self.accounts.insert(*id, account).is_some() {
                    return Err(format!("account {id:?} was made twice"));
                }
            }
            (Op::OpenSession { name, proof }, Outcome::SessionOpened(opened)) => {
                self.opened(name, proof, opened)?;
            }
            (Op::ChangePassword { account, verifier, .. }, _) => {
                let index = self.index;
                let password = passwords.get(&verifier.hash).cloned().unwrap_or_default();
                let account = self.account(*account)?;
                account.passwords.push((index, password));
                account.tokens.iter_mut().for_each(|token| token.2 = token.2.or(Some(index)));
            }
            (Op::AddToken { account, hash, .. }, Outcome::TokenNamed(name)) => {
                self.account(*account)?.tokens.push((*hash, name.clone(), None));
            }
            (Op::DropToken { account, name }, _) => {
                let index = self.index;
                let tokens = &mut self.account(*account)?.tokens;
                tokens.iter_mut().filter(|token| token.1 == *name).for_each(|token| token.2 = token.2.or(Some(index)));
            }
            (Op::Unregister { account, .. }, Outcome::Unregistered(changes)) => {
                for change in changes {
                    self.left(*account, change, news)?;
                }
                self.account(*account)?.erased = true;
                self.markers.retain(|(owner, _), _| owner != account);
            }
            (Op::CreateRoom { account, .. } | Op::JoinRoom { account, .. }, Outcome::Joined(joined)) => {
                let (id, room) = (joined.room.id, &joined.room);
                let conversation = self.conversations.entry(id).or_default();
                if conversation.room.as_ref() != Some(room) || joined.last.0 < conversation.log.len() as u64 {
                    *conversation = Conversation::default(); // a number that is used again
                    self.exchanges.room_made(id);
                }
                if matches!(op, Op::CreateRoom { .. }) {
                    self.exchanges.room_made(id);
                }
                conversation.room = Some(room.clone());
                if conversation.members.insert(*account) != joined.entered {
                    return Err(format!("{account:?} entered {}: {}", room.name, joined.entered));
                }
                if conversation.members.len() as u64 != joined.members || conversation.log.len() as u64 != joined.last.0
                {
                    return Err(format!("a join counts {joined:?}"));
                }
                if joined.entered {
                    self.markers.insert((*account, id), joined.last.0);
                }
            }
            (Op::LeaveRoom { account, .. }, Outcome::RoomChanged(change)) => self.left(*account, change, news)?,
            (Op::Moderate { act: Act::Kick | Act::Ban, .. }, Outcome::RoomChanged(change)) => {
                if let Some(subject) = change.subject.as_ref().filter(|_| change.was_member) {
                    self.left(subject.id, change, news)?;
                }
            }
            (Op::Append { sender, targets, body, key }, Outcome::Appended(results)) => {
                if results.len() != targets.len() {
                    return Err("not one result a target".into());
                }
                for (target, result) in targets.iter().zip(results) {
                    match (key, result) {
                        (Some(key), result) => {
                            self.posted(sender.id, key.as_str(), target, body, result)?;
                        }
                        (None, Ok(appended)) if appended.duplicate => return Err("a duplicate without a key".into()),
                        _ => {}
                    }
                    if let Some(appended) = result.as_ref().ok().filter(|appended| !appended.duplicate) {
                        let at = self.append(sender, target, body, appended, false)?;
                        news.push(News::Message(appended.conversation, at));
                        if let Some(key) = key {
                            let (conversation, id, time) = (appended.conversation, appended.id.0, appended.time);
                            let post = Post { target: target.clone(), body: body.clone(), conversation, id, time };
                            self.posts.insert((sender.id, key.as_str().to_owned()), post);
                        }
                    }
                }
            }
            (Op::Ack { account, .. } | Op::AutoAck { account, .. }, Outcome::Acked(acked)) => {
                for mark in acked {
                    let last = self.conversations.get(&mark.conversation).map_or(0, |found| found.log.len() as u64);
                    let marker = self.markers.entry((*account, mark.conversation)).or_default();
                    if mark.read.0 < *marker || mark.read.0 > last {
                        return Err(format!("a marker went from {marker} to {:?} of {last}", mark.read));
                    }
                    *marker = mark.read.0;
                }
            }
            (Op::BanAccount { subject, banned }, _) => {
                let account = self.accounts.values_mut().find(|account| account.name == subject.as_str());
                account.ok_or("a ban of nobody")?.banned = *banned;
            }
            (Op::Sweep(sweep), _) => {
                self.files.swept(&self.conversations);
                if let Some(before) = sweep.messages_before {
                    for message in self.conversations.values_mut().flat_map(|conversation| &mut conversation.log) {
                        message.old |= message.time < before;
                        self.swept |= message.old;
                    }
                    news.push(News::Old);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The room of this name that an account is in.
    pub fn room_of(&self, account: AccountId, name: &str) -> Option<ConversationId> {
        let is = |found: &Conversation| {
            found.members.contains(&account) && found.room.as_ref().is_some_and(|room| room.name.as_str() == name)
        };
        self.conversations.iter().find(|(_, found)| is(found)).map(|(id, _)| *id)
    }

    fn account(&mut self, id: AccountId) -> Checked<&mut Account> {
        self.accounts.get_mut(&id).filter(|account| !account.erased).ok_or_else(|| format!("no account {id:?}"))
    }

    fn opened(&mut self, name: &UserName, proof: &Proof, opened: &downstream::ops::SessionOpened) -> Checked<()> {
        let account = self.account(opened.account)?;
        if account.name != name.as_str() || account.banned {
            return Err(format!("a session of {name} was opened for {} ({})", account.name, account.banned));
        }
        if let Proof::Token(hash) = proof
            && !account.tokens.iter().any(|token| token.0 == *hash && token.2.is_none())
        {
            return Err("a token that is none opened a session".into());
        }
        let member = |id: &ConversationId| {
            self.conversations.get(id).is_some_and(|room| room.room.is_some() && room.members.contains(&opened.account))
        };
        let rooms: BTreeSet<_> = opened.rooms.iter().map(|room| room.id).collect();
        let expected: BTreeSet<_> = self.conversations.keys().filter(|id| member(id)).copied().collect();
        if rooms != expected { Err(format!("rooms {rooms:?}, not {expected:?}")) } else { Ok(()) }
    }

    fn left(&mut self, account: AccountId, change: &RoomChange, news: &mut Vec<News>) -> Checked<()> {
        let id = change.room.id;
        let room = self.conversations.get_mut(&id).ok_or("a room that is none was left")?;
        if !room.members.remove(&account) {
            return Err(format!("{account:?} left {} without being there", change.room.name));
        }
        if change.heir.as_ref().is_some_and(|heir| !room.members.contains(&heir.id)) {
            return Err("the heir is no member".into());
        }
        self.markers.remove(&(account, id));
        news.push(News::Left(account, id));
        Ok(())
    }

    fn posted(
        &self,
        sender: AccountId,
        key: &str,
        target: &Target,
        body: &Arc<str>,
        result: &Result<Appended, Refused>,
    ) -> Checked<()> {
        let known = self.posts.get(&(sender, key.to_owned()));
        match (known, result) {
            (None, Ok(appended)) if appended.duplicate => Err("a first post is a duplicate".into()),
            (None, Err(Refused::Conflict(_))) => Err("a first post conflicts".into()),
            (Some(post), Ok(appended)) if appended.duplicate => {
                let same = post.target == *target && post.body == *body;
                let found = appended.conversation == post.conversation && appended.id.0 == post.id;
                if same && found { Ok(()) } else { Err(format!("{key} answers {appended:?}")) }
            }
            (Some(post), Ok(appended)) => {
                let life = appended.time.as_millis() - post.time.as_millis();
                if life >= POST_KEY_LIFE_MS { Ok(()) } else { Err(format!("{key} was stored twice")) }
            }
            (Some(post), Err(Refused::Conflict(id))) => {
                let same = post.target == *target && post.body == *body;
                if same || id.0 != post.id { Err(format!("{key} conflicts with {id}")) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn append(
        &mut self,
        sender: &downstream::ops::Person,
        target: &Target,
        body: &Arc<str>,
        appended: &Appended,
        is_file: bool,
    ) -> Checked<usize> {
        let conversation = self.conversations.entry(appended.conversation).or_default();
        match (&appended.to, target) {
            (Destination::User(person), Target::User(name)) if person.name == *name => {
                let pair = BTreeSet::from([sender.id, person.id]);
                if appended.id.0 > 1 && conversation.members != pair {
                    return Err("a direct conversation of others".into());
                }
                if appended.id.0 == 1 {
                    *conversation = Conversation { members: pair, ..Conversation::default() };
                    self.markers.insert((sender.id, appended.conversation), 0);
                    self.markers.insert((person.id, appended.conversation), 0);
                }
            }
            (Destination::Room(name), Target::Room(wanted)) if name == wanted => {
                if !conversation.members.contains(&sender.id) {
                    return Err(format!("{} spoke in {name} without being there", sender.name));
                }
                let e2e = conversation.room.as_ref().is_some_and(|room| room.e2e);
                if e2e && !(if is_file { &**body == "sealed" } else { body.starts_with("e2e:") }) {
                    return Err("a readable message in an end-to-end room".into());
                }
            }
            _ => return Err(format!("{target} is not {:?}", appended.to)),
        }
        let log = &mut conversation.log;
        if appended.id.0 != log.len() as u64 + 1 || log.last().is_some_and(|last| last.time > appended.time) {
            return Err(format!("message {} behind {}", appended.id, log.len()));
        }
        log.push(Message {
            id: appended.id.0,
            sender: sender.id,
            body: body.clone(),
            target: target.clone(),
            sender_name: sender.name.clone(),
            time: appended.time,
            is_file,
            answered: false,
            old: false,
        });
        let at = log.len() - 1;
        self.by_body.entry(body.clone()).or_default().push((appended.conversation, at));
        Ok(at)
    }

    // ---- what the core was told --------------------------------------------------------------------

    /// Before the core hears of it: what it may say from now on.
    pub fn telling(&mut self, op: &Op, result: &Result<Outcome, Refused>) {
        match (op, result) {
            (_, Ok(Outcome::Signalled(stored))) => {
                if let Some(signal) = self.exchanges.signals.get_mut(&(stored.receiver.id, stored.id)) {
                    signal.answered = true;
                }
            }
            (Op::CreateRoom { account, .. } | Op::JoinRoom { account, .. }, Ok(Outcome::Joined(joined))) => {
                self.known.insert((*account, joined.room.id), joined.room.name.to_string());
            }
            (_, Ok(Outcome::Appended(results))) => {
                for appended in results.iter().flatten() {
                    self.answered(appended.conversation, appended.id.0);
                }
            }
            (_, Ok(Outcome::Upload(upload))) => {
                upload.done.iter().for_each(|done| self.answered(done.conversation, done.id.0));
            }
            (_, Ok(Outcome::ChunkWritten(written))) => {
                written.done.iter().for_each(|done| self.answered(done.conversation, done.id.0));
            }
            _ => {}
        }
    }

    /// The core knows of a message from now on.
    fn answered(&mut self, conversation: ConversationId, id: u64) {
        let log = self.conversations.get_mut(&conversation).map(|found| &mut found.log);
        if let Some(message) = log.and_then(|log| log.get_mut((id - 1) as usize)) {
            message.answered = true;
        }
    }

    /// After the core has heard of it: who has left which room.
    pub fn told(&mut self, op: &Op, result: &Result<Outcome, Refused>) -> Vec<(AccountId, ConversationId)> {
        let left: Vec<(AccountId, ConversationId)> = match (op, result) {
            (Op::LeaveRoom { account, .. }, Ok(Outcome::RoomChanged(change))) => vec![(*account, change.room.id)],
            (Op::Moderate { act: Act::Kick | Act::Ban, .. }, Ok(Outcome::RoomChanged(change))) if change.was_member => {
                change.subject.iter().map(|subject| (subject.id, change.room.id)).collect()
            }
            (Op::Unregister { account, .. }, Ok(Outcome::Unregistered(changes))) => {
                changes.iter().map(|change| (*account, change.room.id)).collect()
            }
            _ => Vec::new(),
        };
        for place in &left {
            self.known.remove(place);
        }
        left
    }

    /// The rooms that the core believes an account to be in, with their names.
    pub fn known_of(&self, account: AccountId) -> impl Iterator<Item = (ConversationId, &str)> {
        let all = (account, ConversationId(i64::MIN))..=(account, ConversationId(i64::MAX));
        self.known.range(all).map(|((_, id), name)| (*id, name.as_str()))
    }

    // ---- what is unread ----------------------------------------------------------------------------

    /// Unread messages of others in one conversation.
    pub fn unread_in(&self, account: AccountId, id: ConversationId) -> impl Iterator<Item = &Message> {
        let marker = self.markers.get(&(account, id)).copied();
        let log = self.conversations.get(&id).map_or(&[][..], |conversation| &conversation.log);
        let from = marker.map_or(log.len(), |marker| marker as usize);
        log.get(from..).unwrap_or_default().iter().filter(move |message| message.sender != account)
    }

    /// The conversations of an account.
    pub fn conversations_of(&self, account: AccountId) -> Vec<ConversationId> {
        let own = (account, ConversationId(i64::MIN))..=(account, ConversationId(i64::MAX));
        self.markers.range(own).map(|((_, id), _)| *id).collect()
    }

    /// How a conversation is named for one of those in it.
    pub fn named(&self, account: AccountId, id: ConversationId) -> String {
        let Some(conversation) = self.conversations.get(&id) else { return String::new() };
        match &conversation.room {
            Some(room) => room.name.to_string(),
            None => {
                let other = conversation.members.iter().find(|member| **member != account).unwrap_or(&account);
                self.accounts.get(other).map(|account| account.name.clone()).unwrap_or_default()
            }
        }
    }

    /// A read was answered from what is committed now.
    pub fn looked_up(&self, query: &Query, answer: &Answer) -> Checked<()> {
        let room = match query {
            Query::Roster { account, room, .. } => {
                Some(self.room_of(*account, room.as_str()).ok_or("a roster was read by a stranger")?)
            }
            _ => None,
        };
        self.exchanges.looked_up(query, answer, room)?;
        self.files.looked_up(query, answer, &self.conversations, self.swept)?;
        if self.swept {
            return Ok(());
        }
        match (query, answer) {
            (Query::UnreadCounts { account, all: false }, Answer::UnreadRows(rows)) => {
                let mut expected = BTreeMap::new();
                for id in self.conversations_of(*account) {
                    let unread: Vec<u64> = self.unread_in(*account, id).map(|message| message.id).collect();
                    if let (Some(first), Some(last)) = (unread.first(), unread.last()) {
                        expected.insert(self.named(*account, id), (unread.len() as u64, *first, *last));
                    }
                }
                let found: BTreeMap<_, _> =
                    rows.iter().map(|row| (row.target.to_string(), (row.count, row.first.0, row.last.0))).collect();
                if found != expected {
                    return Err(format!("unread is {found:?}, not {expected:?}"));
                }
            }
            (Query::Page { account, .. } | Query::Unread { account, .. }, Answer::Page(page)) => {
                for row in &page.rows {
                    let found = self.conversations.get(&row.conversation);
                    if !found.is_some_and(|found| found.members.contains(account)) {
                        return Err(format!("{account:?} reads a log of others: {row:?}"));
                    }
                }
            }
            (Query::Members { room, .. }, Answer::Members(rows)) => {
                // A room that was removed may have left its name to another.
                let mut rooms =
                    self.conversations.values().filter(|c| c.room.as_ref().is_some_and(|r| r.name == *room));
                let members: BTreeSet<_> = rows.iter().map(|row| row.person.id).collect();
                if !rooms.any(|found| found.members == members) {
                    return Err(format!("members of {room} are {members:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
