//! What one session was sent, what of it counts as read, and what waits for it in the log.
//!
//! A session is *live* while messages go straight into its queue. When the queue is full, what comes is
//! only noted as a range of each log; when the reader has taken most of the queue, the ranges are read
//! back from the store, a page at a time, until nothing is left. Every message passes here once and in
//! rising order, whichever way it takes.

use std::collections::HashMap;
use std::rc::Rc;

use crate::ops::{Behind, ConversationId, MessageId, PageRow, Range};

/// Bytes for connections: a whole number of lines.
pub type Lines = Rc<[u8]>;

/// A part of the outbound limit: the queue's length at which reading back begins, and the most bytes
/// of live messages that are held while a page is being read.
pub(super) const PART: u64 = 4;

/// Own messages remembered while behind. They are noted so that they are not read back to the session
/// that sent them; beyond this many the session's commands wait until it has caught up.
pub const OWN_MAX: usize = 1024;

/// Unread messages between what was sent and what came live.
#[derive(Debug, Clone, Copy)]
struct Gap {
    /// Everything unread up to here was sent.
    sent: MessageId,
    /// The last message before the live ones.
    until: MessageId,
    /// The last live one, or `until`.
    live: MessageId,
    /// The count of bytes up to its end.
    live_at: u64,
}

/// A live message that came while a page was being read.
#[derive(Debug)]
struct Held {
    conversation: ConversationId,
    id: MessageId,
    lines: Lines,
}

#[derive(Debug, Default)]
struct Lag {
    ranges: HashMap<ConversationId, Range>,
    own: Vec<(ConversationId, MessageId)>,
    /// What the page under way was asked for; `None` while none is.
    reading: Option<Vec<Range>>,
    held: Vec<Held>,
    held_bytes: u64,
}

/// Something that was sent and counts as read once the session shows that it got it.
#[derive(Debug, Clone, Copy)]
struct Mark {
    conversation: ConversationId,
    id: MessageId,
    /// Read when so many bytes of the connection were taken.
    at: u64,
}

/// What to do with a live message.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Queue it now.
    Send,
    /// It waits; nothing is to be done.
    Wait,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Delivery {
    gaps: HashMap<ConversationId, Gap>,
    marks: Vec<Mark>,
    lag: Option<Box<Lag>>,
}

impl Delivery {
    /// A session that has these conversations behind it, and has been sent nothing of them. It is behind
    /// from the start, with a page being read: what comes meanwhile waits.
    pub fn arriving(behind: &[Behind]) -> Delivery {
        let gap = |b: &Behind| (b.conversation, Gap { sent: b.read, until: b.last, live: b.last, live_at: 0 });
        Delivery {
            gaps: behind.iter().map(gap).collect(),
            marks: Vec::new(),
            lag: Some(Box::new(Lag { reading: Some(Vec::new()), ..Lag::default() })),
        }
    }

    /// Whether messages wait in the log.
    pub fn is_behind(&self) -> bool {
        self.lag.is_some()
    }

    /// Whether its own messages can still be told from those that wait.
    pub fn takes_own(&self) -> bool {
        self.lag.as_ref().is_none_or(|lag| lag.own.len() < OWN_MAX)
    }

    /// A message is there for it. `queued` are the bytes in its queue, `limit` the most that may be; an
    /// empty queue takes one message of any length, since no drained byte would ever call for it.
    pub fn offer(
        &mut self,
        conversation: ConversationId,
        id: MessageId,
        lines: &Lines,
        queued: u64,
        limit: u64,
    ) -> Verdict {
        let bytes = lines.len() as u64;
        match &mut self.lag {
            None if queued == 0 || queued + bytes <= limit => return Verdict::Send,
            None => {
                let lag = self.lag.insert(Box::default());
                lag.extend(conversation, id);
            }
            Some(lag) if lag.reading.is_some() && lag.held_bytes + bytes <= limit / PART => {
                lag.held_bytes += bytes;
                lag.held.push(Held { conversation, id, lines: lines.clone() });
            }
            Some(lag) => {
                lag.give_up_holding();
                lag.extend(conversation, id);
            }
        }
        Verdict::Wait
    }

    /// The session itself sent this one, so it is not for it.
    pub fn sent_by_itself(&mut self, conversation: ConversationId, id: MessageId) {
        if let Some(lag) = &mut self.lag {
            lag.own.push((conversation, id));
        }
    }

    /// It is not in this conversation any more.
    pub fn leave(&mut self, conversation: ConversationId) {
        self.gaps.remove(&conversation);
        self.marks.retain(|mark| mark.conversation != conversation);
        if let Some(lag) = &mut self.lag {
            lag.ranges.remove(&conversation);
            lag.held.retain(|held| held.conversation != conversation);
        }
    }

    /// The ranges to read now, if it is time: it is behind, no page is being read, and the queue is short.
    pub fn read_back(&mut self, queued: u64, limit: u64) -> Option<Vec<Range>> {
        let lag = self.lag.as_mut().filter(|lag| lag.reading.is_none() && queued <= limit / PART)?;
        let ranges: Vec<Range> = lag.ranges.values().copied().collect();
        lag.reading = Some(ranges.clone());
        Some(ranges)
    }

    /// Takes a page that was read back: calls `send` for each message that is really due. Afterwards it
    /// is live, or has more to read.
    pub fn take_page(&mut self, rows: &[PageRow], more: bool, mut send: impl FnMut(&PageRow)) {
        let Some(lag) = &mut self.lag else { return };
        for row in rows {
            // A range that is gone was left meanwhile.
            let Some(range) = lag.ranges.get_mut(&row.conversation) else { continue };
            if row.id <= range.after || row.id > range.upto {
                continue;
            }
            range.after = row.id;
            if !lag.own.contains(&(row.conversation, row.id)) {
                send(row);
            }
        }
        let asked = lag.reading.take().unwrap_or_default();
        if !more {
            // All that was asked for is here; of the rest nothing is left in the log.
            for done in asked {
                if let Some(range) = lag.ranges.get_mut(&done.conversation) {
                    range.after = range.after.max(done.upto);
                }
            }
        }
        lag.ranges.retain(|_, range| range.after < range.upto);
        if !lag.ranges.is_empty() {
            lag.give_up_holding();
        }
    }

    /// The page could not be read: it is asked for again.
    pub fn page_failed(&mut self) {
        if let Some(lag) = &mut self.lag {
            lag.reading = None;
            lag.give_up_holding();
        }
    }

    /// After a last page: what was held while it was read, now due; the session is live again.
    pub fn catch_up(&mut self, mut send: impl FnMut(ConversationId, MessageId, &Lines)) {
        let Some(lag) = self.lag.take_if(|lag| lag.reading.is_none() && lag.ranges.is_empty()) else { return };
        for held in &lag.held {
            if !lag.own.contains(&(held.conversation, held.id)) {
                send(held.conversation, held.id, &held.lines);
            }
        }
    }

    // ---- what counts as read -----------------------------------------------------------------------

    /// A message was queued; `at` is the count of bytes up to its end.
    pub fn queued_live(&mut self, conversation: ConversationId, id: MessageId, at: u64) {
        match self.gaps.get_mut(&conversation) {
            Some(gap) => (gap.live, gap.live_at) = (id, at),
            None => self.mark(conversation, id, at),
        }
    }

    /// Everything unread of a conversation up to `id` was queued, beginning at `from` or before.
    pub fn queued_unread(&mut self, conversation: ConversationId, from: MessageId, id: MessageId, at: u64) {
        let Some(gap) = self.gaps.get_mut(&conversation) else { return };
        if from > gap.sent || id <= gap.sent {
            return;
        }
        gap.sent = id;
        let read = if gap.sent >= gap.until { gap.live.max(id) } else { id };
        if gap.sent >= gap.until {
            self.gaps.remove(&conversation);
        }
        self.mark(conversation, read, at);
    }

    /// Everything unread of every conversation was queued.
    pub fn queued_all_unread(&mut self, at: u64) {
        for (conversation, gap) in std::mem::take(&mut self.gaps) {
            self.mark(conversation, gap.live, at);
        }
    }

    /// The account's marker was moved, perhaps by another session.
    pub fn marker_moved(&mut self, conversation: ConversationId, read: MessageId) {
        if let Some(gap) = self.gaps.get_mut(&conversation) {
            gap.sent = gap.sent.max(read);
            if gap.sent >= gap.until {
                let (live, at) = (gap.live, gap.live_at);
                self.gaps.remove(&conversation);
                if live > read {
                    self.mark(conversation, live, at);
                }
            }
        }
    }

    fn mark(&mut self, conversation: ConversationId, id: MessageId, at: u64) {
        match self.marks.iter_mut().find(|mark| mark.conversation == conversation) {
            Some(mark) => {
                mark.id = mark.id.max(id);
                mark.at = mark.at.max(at);
            }
            None => self.marks.push(Mark { conversation, id, at }),
        }
    }

    /// A line came when `flushed` bytes had been taken: what is read by that.
    pub fn read_by_line(&mut self, flushed: u64) -> Vec<(ConversationId, MessageId)> {
        if self.marks.is_empty() {
            return Vec::new();
        }
        let read = self.marks.iter().filter(|mark| mark.at <= flushed).map(|mark| (mark.conversation, mark.id));
        let read = read.collect();
        self.marks.retain(|mark| mark.at > flushed);
        if self.marks.is_empty() {
            self.marks = Vec::new(); // an idle session keeps nothing
        }
        read
    }
}

impl Lag {
    fn extend(&mut self, conversation: ConversationId, id: MessageId) {
        let before = MessageId(id.0.saturating_sub(1));
        let range = self.ranges.entry(conversation).or_insert(Range { conversation, after: before, upto: id });
        range.upto = range.upto.max(id);
    }

    /// What was held goes back to the log.
    fn give_up_holding(&mut self) {
        for held in std::mem::take(&mut self.held) {
            self.extend(held.conversation, held.id);
        }
        self.held_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const ROOM: ConversationId = ConversationId(7);
    const LIMIT: u64 = 1000;

    fn lines(bytes: usize) -> Lines {
        vec![b'x'; bytes].into()
    }

    fn row(id: u64) -> PageRow {
        PageRow { conversation: ROOM, id: MessageId(id), in_room: true, begin: 0, end: 0 }
    }

    fn range(after: u64, upto: u64) -> Range {
        Range { conversation: ROOM, after: MessageId(after), upto: MessageId(upto) }
    }

    #[test]
    fn a_full_queue_goes_behind_and_comes_back_in_order() {
        let mut delivery = Delivery::default();
        assert_eq!(delivery.offer(ROOM, MessageId(1), &lines(100), 900, LIMIT), Verdict::Send);
        for id in 2..=4 {
            assert_eq!(delivery.offer(ROOM, MessageId(id), &lines(100), 1000, LIMIT), Verdict::Wait);
        }
        assert_eq!(delivery.read_back(600, LIMIT), None, "the queue is still long");
        assert_eq!(delivery.read_back(250, LIMIT), Some(vec![range(1, 4)]));
        assert_eq!(delivery.read_back(0, LIMIT), None, "a page is being read");
        assert_eq!(delivery.offer(ROOM, MessageId(5), &lines(100), 0, LIMIT), Verdict::Wait, "held");
        delivery.sent_by_itself(ROOM, MessageId(3));
        let mut got = Vec::new();
        delivery.take_page(&[row(2), row(3), row(4)], false, |row| got.push(row.id.0));
        delivery.catch_up(|_, id, _| got.push(id.0));
        assert_eq!(got, [2, 4, 5]);
        assert!(!delivery.is_behind());
        assert_eq!(delivery.offer(ROOM, MessageId(6), &lines(100), 0, LIMIT), Verdict::Send);
    }

    #[test]
    fn an_empty_queue_takes_a_message_longer_than_the_limit() {
        let mut delivery = Delivery::default();
        assert_eq!(delivery.offer(ROOM, MessageId(1), &lines(2000), 0, LIMIT), Verdict::Send);
        assert_eq!(delivery.offer(ROOM, MessageId(2), &lines(1), 2000, LIMIT), Verdict::Wait);
    }

    #[test]
    fn too_much_to_hold_returns_to_the_log() {
        let mut delivery = Delivery::default();
        delivery.offer(ROOM, MessageId(1), &lines(100), 1000, LIMIT);
        assert!(delivery.read_back(0, LIMIT).is_some());
        for id in 2..=9 {
            delivery.offer(ROOM, MessageId(id), &lines(100), 0, LIMIT);
        }
        let mut got = Vec::new();
        delivery.take_page(&[row(1)], true, |row| got.push(row.id.0));
        assert_eq!(delivery.read_back(0, LIMIT), Some(vec![range(1, 9)]));
        delivery.take_page(&[row(1), row(2), row(3)], true, |row| got.push(row.id.0));
        delivery.catch_up(|_, _, _| panic!("more is in the log"));
        assert_eq!(delivery.read_back(0, LIMIT), Some(vec![range(3, 9)]));
        assert_eq!(got, [1, 2, 3]);
    }

    #[test]
    fn what_came_behind_the_page_is_not_taken_for_read() {
        let mut delivery = Delivery::default();
        delivery.offer(ROOM, MessageId(1), &lines(100), 1000, LIMIT);
        assert_eq!(delivery.read_back(0, LIMIT), Some(vec![range(0, 1)]));
        for id in 2..=9 {
            delivery.offer(ROOM, MessageId(id), &lines(100), 0, LIMIT);
        }
        delivery.take_page(&[], false, |_| panic!("the first was deleted"));
        delivery.catch_up(|_, _, _| panic!("more is in the log"));
        assert_eq!(delivery.read_back(0, LIMIT), Some(vec![range(1, 9)]));
    }

    #[test]
    fn what_is_left_is_not_delivered() {
        let mut delivery = Delivery::default();
        delivery.offer(ROOM, MessageId(1), &lines(100), 1000, LIMIT);
        assert!(delivery.read_back(0, LIMIT).is_some());
        delivery.leave(ROOM);
        delivery.take_page(&[row(1)], false, |_| panic!("not a member"));
        delivery.catch_up(|_, _, _| {});
        assert!(!delivery.is_behind());
    }

    #[test]
    fn a_live_message_is_read_once_written_and_answered() {
        let mut delivery = Delivery::default();
        delivery.queued_live(ROOM, MessageId(4), 100);
        assert_eq!(delivery.read_by_line(99), []);
        assert_eq!(delivery.read_by_line(100), [(ROOM, MessageId(4))]);
        assert_eq!(delivery.read_by_line(100), []);
    }

    #[test]
    fn a_gap_is_never_jumped() {
        let behind = Behind { conversation: ROOM, read: MessageId(2), last: MessageId(9) };
        let mut delivery = Delivery::arriving(&[behind]);
        delivery.queued_live(ROOM, MessageId(10), 50);
        delivery.queued_unread(ROOM, MessageId(6), MessageId(9), 60);
        assert_eq!(delivery.read_by_line(1000), [], "3 to 5 are missing");
        delivery.queued_unread(ROOM, MessageId(2), MessageId(5), 70);
        assert_eq!(delivery.read_by_line(1000), [(ROOM, MessageId(5))]);
        delivery.queued_unread(ROOM, MessageId(5), MessageId(9), 80);
        assert_eq!(delivery.read_by_line(1000), [(ROOM, MessageId(10))], "with what came live behind it");
    }

    #[test]
    fn own_messages_at_the_end_keep_no_gap_open() {
        let behind = Behind { conversation: ROOM, read: MessageId(2), last: MessageId(9) };
        let mut delivery = Delivery::arriving(&[behind]);
        delivery.queued_live(ROOM, MessageId(10), 50);
        delivery.queued_unread(ROOM, MessageId(0), MessageId(7), 60);
        assert_eq!(delivery.read_by_line(1000), [(ROOM, MessageId(7))], "8 and 9 are one's own");
        delivery.queued_all_unread(70);
        assert_eq!(delivery.read_by_line(1000), [(ROOM, MessageId(10))]);
    }

    #[test]
    fn a_marker_moved_elsewhere_closes_a_gap() {
        let behind = Behind { conversation: ROOM, read: MessageId(2), last: MessageId(9) };
        let mut delivery = Delivery::arriving(&[behind]);
        delivery.queued_live(ROOM, MessageId(10), 50);
        delivery.marker_moved(ROOM, MessageId(9));
        assert_eq!(delivery.read_by_line(49), [], "the live one was not written yet");
        assert_eq!(delivery.read_by_line(1000), [(ROOM, MessageId(10))]);
        delivery.queued_live(ROOM, MessageId(11), 90);
        assert_eq!(delivery.read_by_line(100), [(ROOM, MessageId(11))]);
    }
}
