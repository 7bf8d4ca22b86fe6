//! Cuts a byte stream into lines, with a hard cap on what it holds.

/// Why a line cannot be read. The connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFault {
    /// Longer than the limit, which is named in bytes with the ending. What is left of the line is
    /// dropped as it arrives.
    TooLong(usize),
    /// Holds a NUL byte.
    Nul,
    /// Holds a carriage return that does not stand directly before the line feed.
    BareCr,
    /// Is not UTF-8.
    NotUtf8,
}

/// Holds what has arrived and not been taken: whole lines that wait, and the beginning of one.
///
/// Memory: at most what one [`LineSplitter::fill`] added to a beginning shorter than the limit; an
/// over-long line is not kept. Nothing is allocated while nothing waits.
#[derive(Debug)]
pub struct LineSplitter {
    buffer: Vec<u8>,
    /// Everything before this was taken.
    start: usize,
    /// Everything before this was searched for a line feed, so that a line that arrives a byte at a
    /// time costs one look a byte.
    searched: usize,
    limit: usize,
    /// Inside an over-long line, waiting for its end.
    dropping: bool,
}

impl LineSplitter {
    /// A splitter for lines of at most `limit` bytes, ending included.
    pub fn new(limit: usize) -> LineSplitter {
        LineSplitter { buffer: Vec::new(), start: 0, searched: 0, limit, dropping: false }
    }

    /// Changes the limit for lines not taken yet.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// Adds what arrived.
    pub fn fill(&mut self, bytes: &[u8]) {
        let mut bytes = bytes;
        if self.dropping && self.is_empty() {
            match memchr::memchr(b'\n', bytes) {
                None => return,
                Some(end) => {
                    self.dropping = false;
                    bytes = bytes.get(end + 1..).unwrap_or_default();
                }
            }
        }
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.searched -= self.start;
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether nothing waits, not even a beginning.
    pub fn is_empty(&self) -> bool {
        self.start == self.buffer.len()
    }

    /// Whether a line was begun and not ended, also an over-long one that is being dropped. Right only
    /// after [`LineSplitter::next_line`] answered `None`.
    pub fn is_inside_line(&self) -> bool {
        self.dropping || !self.is_empty()
    }

    /// How many bytes wait.
    pub fn len(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// The next line without its ending, or what is wrong with it; `None` until more arrives.
    pub fn next_line(&mut self) -> Option<Result<&str, LineFault>> {
        if self.dropping {
            let end = self.find_end();
            self.start = end.map_or(self.buffer.len(), |end| end + 1);
            self.searched = self.start;
            if end.is_none() {
                self.release();
                return None;
            }
            self.dropping = false;
        }
        let Some(end) = self.find_end() else {
            if self.len() >= self.limit {
                self.dropping = true;
                self.start = self.buffer.len();
                self.searched = self.start;
                self.release();
                return Some(Err(LineFault::TooLong(self.limit)));
            }
            if self.is_empty() {
                self.release();
            }
            return None;
        };
        let begin = self.start;
        self.start = end + 1;
        self.searched = self.start;
        if end + 1 - begin > self.limit {
            return Some(Err(LineFault::TooLong(self.limit)));
        }
        let line = self.buffer.get(begin..end).unwrap_or_default();
        Some(check(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    fn find_end(&mut self) -> Option<usize> {
        let fresh = self.buffer.get(self.searched..).unwrap_or_default();
        let found = memchr::memchr(b'\n', fresh).map(|at| self.searched + at);
        self.searched = found.unwrap_or(self.buffer.len());
        found
    }

    fn release(&mut self) {
        self.buffer = Vec::new();
        self.start = 0;
        self.searched = 0;
    }
}

fn check(line: &[u8]) -> Result<&str, LineFault> {
    let text = std::str::from_utf8(line).map_err(|_| LineFault::NotUtf8)?;
    match memchr::memchr2(0, b'\r', line).and_then(|at| line.get(at)) {
        Some(0) => Err(LineFault::Nul),
        Some(_) => Err(LineFault::BareCr),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(splitter: &mut LineSplitter) -> Vec<Result<String, LineFault>> {
        let mut lines = Vec::new();
        while let Some(line) = splitter.next_line() {
            lines.push(line.map(str::to_owned));
        }
        lines
    }

    #[test]
    fn endings_and_faults() {
        let mut splitter = LineSplitter::new(16);
        splitter.fill(b"a\r\nb\n\n\r\nx\0y\nx\ry\n\xff\nrest");
        assert_eq!(
            all(&mut splitter),
            [
                Ok("a".into()),
                Ok("b".into()),
                Ok(String::new()),
                Ok(String::new()),
                Err(LineFault::Nul),
                Err(LineFault::BareCr),
                Err(LineFault::NotUtf8)
            ]
        );
        assert!(splitter.is_inside_line());
        splitter.fill(b"\n");
        assert_eq!(all(&mut splitter), [Ok("rest".into())]);
        assert!(!splitter.is_inside_line());
        assert_eq!(splitter.buffer.capacity(), 0, "an idle splitter holds nothing");
    }

    #[test]
    fn the_limit_counts_the_ending() {
        let mut splitter = LineSplitter::new(4);
        splitter.fill(b"abc\nabcd\nab\r\nabc\r\nok\n");
        let long = || Err(LineFault::TooLong(4));
        assert_eq!(all(&mut splitter), [Ok("abc".into()), long(), Ok("ab".into()), long(), Ok("ok".into())]);
    }

    #[test]
    fn an_endless_line_is_told_once_and_costs_nothing() {
        let mut splitter = LineSplitter::new(100);
        let mut faults = 0;
        for _ in 0..10_000 {
            splitter.fill(&[b'x'; 64]);
            faults += all(&mut splitter).len();
            assert!(splitter.len() < 100 && splitter.buffer.capacity() <= 256);
        }
        assert_eq!(faults, 1);
        assert!(splitter.is_inside_line());
        splitter.fill(b"xx\nnext\n");
        assert_eq!(all(&mut splitter), [Ok("next".into())]);
    }

    #[test]
    fn a_new_limit_holds_for_what_waits() {
        let mut splitter = LineSplitter::new(4);
        splitter.fill(b"a\nlonger\n");
        assert_eq!(splitter.next_line(), Some(Ok("a")));
        splitter.set_limit(100);
        assert_eq!(splitter.next_line(), Some(Ok("longer")));
    }

    proptest! {
        /// However the stream is cut, the same lines come out.
        #[test]
        fn cuts_do_not_matter(bytes in proptest::collection::vec(prop_oneof![4 => Just(b'x'), 2 => Just(b'\n'), 1 => Just(b'\r'), 1 => any::<u8>()], 0..400),
                              cuts in proptest::collection::vec(1usize..40, 1..40)) {
            let mut whole = LineSplitter::new(20);
            whole.fill(&bytes);
            let expected = all(&mut whole);
            let mut pieces = LineSplitter::new(20);
            let mut lines = Vec::new();
            let mut rest = bytes.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                pieces.fill(now);
                lines.extend(all(&mut pieces));
                rest = later;
            }
            prop_assert_eq!(lines, expected);
            prop_assert_eq!(pieces.is_inside_line(), whole.is_inside_line());
        }
    }
}
