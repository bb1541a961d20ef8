//! Stop strings in streamed text.
//!
//! An Aho-Corasick automaton over the bytes of the stop strings: its state is the longest end of the text
//! that begins a stop string, so exactly that much is held back, and a match is seen with its last byte,
//! whatever the pieces the text came in. The match that ends first wins; of several that end together, the
//! longest.

/// No node.
const NONE: u32 = u32::MAX;

/// Finds stop strings in text that comes in pieces, and holds back what may become one.
#[derive(Clone, Debug)]
pub struct StopMatcher {
    nodes: Vec<Node>,
    stops: Vec<String>,
    include_in_output: bool,
    state: u32,
    /// The end of the text that spells `state`, not given out yet.
    held: String,
    /// Text passes unmatched.
    is_held: bool,
    matched: Option<usize>,
}

/// A beginning of a stop string.
#[derive(Clone, Debug)]
struct Node {
    /// Longer beginnings by their last byte. Few: a list beats a table.
    next: Vec<(u8, u32)>,
    /// The longest other beginning that this one ends with.
    fallback: u32,
    /// Bytes.
    depth: u32,
    /// The longest stop string that ends here.
    stop: Option<usize>,
}

impl Node {
    fn new(depth: u32) -> Self {
        Self { next: Vec::new(), fallback: 0, depth, stop: None }
    }

    fn child(&self, byte: u8) -> u32 {
        self.next.iter().find(|(b, _)| *b == byte).map_or(NONE, |(_, node)| *node)
    }
}

impl StopMatcher {
    /// A matcher for `stops`; an empty string among them never matches. `include_in_output` keeps the matched
    /// string in the text.
    #[must_use]
    pub fn new(stops: Vec<String>, include_in_output: bool) -> Self {
        let mut nodes = vec![Node::new(0)];
        for (index, stop) in stops.iter().enumerate().filter(|(_, stop)| !stop.is_empty()) {
            insert(&mut nodes, stop, index);
        }
        link(&mut nodes);
        let (held, is_held, matched) = (String::new(), false, None);
        Self { nodes, stops, include_in_output, state: 0, held, is_held, matched }
    }

    /// While `true`, text passes through and is not matched, also not as the beginning of a later match: for
    /// the tokens below a minimum.
    pub fn hold(&mut self, held: bool) {
        self.is_held = held;
    }

    /// Takes the next piece of text and appends to `out` what certainly is no part of a stop string. Returns
    /// the index of the stop string that is complete; from then on all text is dropped.
    pub fn push(&mut self, text: &str, out: &mut String) -> Option<usize> {
        if self.matched.is_some() {
            return self.matched;
        }
        if self.is_held || self.nodes.len() == 1 {
            self.finish(out);
            out.push_str(text);
            return None;
        }
        for (at, byte) in text.bytes().enumerate() {
            self.state = step(&self.nodes, self.state, byte);
            if let Some(stop) = self.nodes[self.state as usize].stop {
                self.held.push_str(&text[..=at]);
                self.release_match(stop, out);
                return self.matched;
            }
        }
        self.held.push_str(text);
        let depth = self.nodes[self.state as usize].depth as usize;
        let free = self.held.len() - depth;
        out.push_str(&self.held[..free]);
        self.held.drain(..free);
        None
    }

    /// Ends the text: what was held back is no stop string after all.
    pub fn finish(&mut self, out: &mut String) {
        out.push_str(&self.held);
        self.held.clear();
        self.state = 0;
    }

    fn release_match(&mut self, stop: usize, out: &mut String) {
        let len = match self.include_in_output {
            true => self.held.len(),
            false => self.held.len() - self.stops[stop].len(),
        };
        out.push_str(&self.held[..len]);
        self.held.clear();
        self.state = 0;
        self.matched = Some(stop);
    }
}

fn step(nodes: &[Node], mut state: u32, byte: u8) -> u32 {
    loop {
        let node = &nodes[state as usize];
        let child = node.child(byte);
        if child != NONE {
            return child;
        }
        if state == 0 {
            return 0;
        }
        state = node.fallback;
    }
}

fn insert(nodes: &mut Vec<Node>, stop: &str, index: usize) {
    let mut state = 0;
    for byte in stop.bytes() {
        let mut child = nodes[state].child(byte);
        if child == NONE {
            child = u32::try_from(nodes.len()).expect("stop strings are shorter than 4 GiB");
            let depth = nodes[state].depth + 1;
            nodes.push(Node::new(depth));
            nodes[state].next.push((byte, child));
        }
        state = child as usize;
    }
    nodes[state].stop.get_or_insert(index);
}

/// Sets fallbacks, shorter beginnings first, and hands down the stop strings that end inside of others.
fn link(nodes: &mut [Node]) {
    let mut order: Vec<u32> = nodes[0].next.iter().map(|(_, child)| *child).collect();
    let mut at = 0;
    while at < order.len() {
        let parent = order[at] as usize;
        at += 1;
        for (byte, child) in nodes[parent].next.clone() {
            let fallback = step(nodes, nodes[parent].fallback, byte);
            let inherited = nodes[fallback as usize].stop;
            let node = &mut nodes[child as usize];
            node.fallback = fallback;
            node.stop = node.stop.or(inherited);
            order.push(child);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Text given out and the stop string found, over the pieces.
    fn run(stops: &[&str], include: bool, pieces: &[&str]) -> (String, Option<usize>) {
        let stops = stops.iter().map(|s| (*s).to_owned()).collect();
        let mut matcher = StopMatcher::new(stops, include);
        let mut out = String::new();
        for piece in pieces {
            if let Some(stop) = matcher.push(piece, &mut out) {
                return (out, Some(stop));
            }
        }
        matcher.finish(&mut out);
        (out, None)
    }

    /// The definition: the match with the first end, the longest of those.
    fn naive(stops: &[&str], include: bool, text: &str) -> (String, Option<usize>) {
        let mut best: Option<(usize, usize, usize)> = None;
        for (index, stop) in stops.iter().enumerate().filter(|(_, s)| !s.is_empty()) {
            if let Some(start) = text.find(stop) {
                let found = (start + stop.len(), start, index);
                best = Some(best.map_or(found, |b| b.min(found)));
            }
        }
        match best {
            Some((end, start, index)) => {
                (text[..if include { end } else { start }].to_owned(), Some(index))
            }
            None => (text.to_owned(), None),
        }
    }

    #[test]
    fn matches() {
        for (stops, include, pieces, text, stop) in [
            (&["\n\n"][..], false, &["one\n", "\ntwo"][..], "one", Some(0)),
            (&["\n\n"], true, &["one\n", "\ntwo"], "one\n\n", Some(0)),
            (&["abc", "b"], false, &["xa", "bc"], "xa", Some(1)),
            (&["bc", "abc"], false, &["xab", "c"], "x", Some(1)),
            (&["aab"], false, &["aa", "aab"], "aa", Some(0)),
            (&["END"], false, &["EN", "EN"], "ENEN", None),
            (&["é!"], false, &["caf", "é", "?"], "café?", None),
            (&[""], false, &["a"], "a", None),
            (&[], false, &["a", "b"], "ab", None),
            (&["a", "a"], false, &["ba"], "b", Some(0)),
        ] {
            let expected = (text.to_owned(), stop);
            assert_eq!(run(stops, include, pieces), expected, "{stops:?} {pieces:?}");
        }
    }

    #[test]
    fn only_a_possible_match_is_held_back() {
        let mut matcher = StopMatcher::new(vec!["</end>".to_owned()], false);
        let mut out = String::new();
        for (piece, given) in [("a<", "a"), ("/", "a"), ("x", "a</x"), ("</en", "a</x")] {
            assert_eq!(matcher.push(piece, &mut out), None);
            assert_eq!(out, given);
        }
        matcher.finish(&mut out);
        assert_eq!(out, "a</x</en");
    }

    #[test]
    fn text_passes_while_held() {
        let mut matcher = StopMatcher::new(vec!["ab".to_owned()], false);
        let mut out = String::new();
        matcher.hold(true);
        assert_eq!(matcher.push("xaba", &mut out), None);
        matcher.hold(false);
        assert_eq!(matcher.push("b", &mut out), None, "the match may not begin in held text");
        assert_eq!(matcher.push("ab", &mut out), Some(0));
        assert_eq!(matcher.push("more", &mut out), Some(0));
        assert_eq!(out, "xabab");
    }

    proptest! {
        #[test]
        fn any_pieces_give_what_a_search_of_the_whole_gives(
            text in "[abé]{0,24}",
            stops in prop::collection::vec("[abé]{0,4}", 0..4),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
            include in any::<bool>(),
        ) {
            let boundaries: Vec<usize> = (0..=text.len()).filter(|i| text.is_char_boundary(*i)).collect();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| *cut.get(&boundaries)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            prop_assert_eq!(run(&stops, include, &pieces), naive(&stops, include, &text));
        }
    }
}
