//! The text form: a header, blocks of `Tree=`, a tail. Lines are `key=value`; arrays have single spaces between numbers.

use std::collections::HashMap;
use std::str::FromStr;

use tokenmill_kernels::trees::Tree;

use super::source::{Kind, LinearLeaf, Missing, Source, category_split, node};
use crate::ensemble::afford;
use crate::error::Fault;

/// Reads a whole file.
pub(super) fn parse(text: &str) -> Result<Source, Fault> {
    let blocks = Blocks::split(text)?;
    let header = Block::new("header", &blocks.header);
    let features = header.number::<usize>("max_feature_idx")?;
    let features = features.checked_add(1).filter(|&n| n < u32::MAX as usize);
    let features = features.ok_or_else(|| header.wrong("max_feature_idx", "is too large"))?;
    let classes = header.number("num_class")?;
    let per_round = match header.get("num_tree_per_iteration") {
        Some(_) => header.number("num_tree_per_iteration")?,
        None => classes,
    };
    let names = header.words("feature_names").map(str::to_owned).collect::<Vec<_>>();
    header.length("feature_names", names.len(), features)?;
    let kinds = match header.get("feature_infos") {
        Some(_) => header.words("feature_infos").map(kind).collect(),
        None => vec![Kind::Unknown; features],
    };
    header.length("feature_infos", kinds.len(), features)?;
    let (mut trees, mut linear) = (Vec::new(), Vec::new());
    for (index, (tree, leaves)) in blocks.trees.into_iter().enumerate() {
        if leaves.iter().flatten().flat_map(|leaf| &leaf.terms).any(|t| t.0 as usize >= features) {
            let reason = format!("a feature is not below {features}");
            return Err(Fault::corrupt(format!("Tree={index}.leaf_features"), reason));
        }
        trees.push(tree);
        linear.push(leaves);
    }
    let categories = match blocks.categories {
        Some(json) => categories(json)?,
        None => Vec::new(),
    };
    let source = Source {
        version: header.get("version").unwrap_or("v2").to_owned(),
        classes,
        per_round,
        objective: header.get("objective").map(str::to_owned),
        average: header.get("average_output").is_some(),
        names,
        kinds,
        trees,
        linear,
        categories,
    };
    source.finish()
}

/// The value of `pandas_categorical:`.
fn categories(json: &str) -> Result<Vec<Vec<serde_json::Value>>, Fault> {
    let read: Result<Option<Vec<Vec<serde_json::Value>>>, _> = serde_json::from_str(json.trim());
    let wrong = |error| {
        let reason = format!("expected null or a list of lists of categories: {error}");
        Fault::corrupt("pandas_categorical", reason)
    };
    Ok(read.map_err(wrong)?.unwrap_or_default())
}

/// An item of `feature_infos`: `none`, `[min:max]`, or the categories seen.
fn kind(info: &str) -> Kind {
    match info {
        "none" => Kind::Unknown,
        range if range.starts_with('[') => Kind::Number,
        _ => Kind::Category,
    }
}

/// The parts of a file. Trees are read as their lines end, so that a file of nothing but lines is refused early.
struct Blocks<'a> {
    header: Vec<&'a str>,
    trees: Vec<(Tree, Option<Vec<LinearLeaf>>)>,
    /// Bytes of each tree's lines.
    sizes: Vec<usize>,
    /// The lines of the tree that is being read.
    lines: Vec<&'a str>,
    categories: Option<&'a str>,
    /// Leaves of the trees, with what trees take beside them, and bytes of the file.
    nodes: usize,
    length: usize,
}

/// Bytes of a leaf and its parent while a model is lowered, and the leaves of as many bytes as a tree takes beside them.
const NODE: usize = 120;
const TREE: usize = 2;

/// Lines of the header, or of a tree; the library writes about 20.
const MAX_LINES: usize = 256;

/// Where the lines that are read next belong.
#[derive(PartialEq)]
enum Part {
    Header,
    Tree,
    /// Behind the empty line that ends a tree.
    Between,
    Tail,
}

impl<'a> Blocks<'a> {
    fn split(text: &'a str) -> Result<Self, Fault> {
        let mut lines = text.lines();
        if lines.next() != Some("tree") {
            let reason = "expected `tree`, as LightGBM's text models begin";
            return Err(Fault::corrupt("line 1", reason));
        }
        let (header, trees, sizes) = (Vec::new(), Vec::new(), Vec::new());
        let (open, length) = (Vec::new(), text.len());
        let mut blocks =
            Blocks { header, trees, sizes, lines: open, categories: None, nodes: 0, length };
        let mut part = Part::Header;
        for line in lines {
            if part == Part::Tail {
                blocks.categories = line.strip_prefix("pandas_categorical:").or(blocks.categories);
                continue;
            }
            let (starts, ends) = (line.starts_with("Tree="), is_end(line));
            if part == Part::Tree && (starts || ends || line.is_empty()) {
                blocks.close()?;
                part = Part::Between;
            }
            if ends {
                part = Part::Tail;
                continue;
            }
            if starts {
                blocks.sizes.push(0);
                part = Part::Tree;
            }
            if let Some(size) = blocks.sizes.last_mut() {
                *size += line.len() + 1;
            }
            blocks.add(&part, line)?;
        }
        if part == Part::Tree {
            blocks.close()?;
        }
        check_sizes(&blocks, part == Part::Tail)?;
        Ok(blocks)
    }

    fn add(&mut self, part: &Part, line: &'a str) -> Result<(), Fault> {
        let lines = match part {
            Part::Header => &mut self.header,
            Part::Tree => &mut self.lines,
            _ if line.is_empty() => return Ok(()),
            _ => {
                let at = format!("after Tree={}", self.sizes.len().saturating_sub(1));
                let reason = format!("expected a tree or `end of trees`, found {}", cut(line));
                return Err(Fault::corrupt(at, reason));
            }
        };
        if lines.len() >= MAX_LINES {
            let reason = format!("more than {MAX_LINES} lines in the header or a tree");
            return Err(Fault::corrupt(cut(line), reason));
        }
        lines.push(line);
        Ok(())
    }

    /// Reads the tree whose lines are complete.
    fn close(&mut self) -> Result<(), Fault> {
        let block = Block::new(&format!("Tree={}", self.trees.len()), &self.lines);
        let read = tree(&block)?;
        self.nodes += read.0.leaves.len() + TREE;
        self.trees.push(read);
        self.lines.clear();
        afford(self.nodes, NODE, self.length)
    }
}

/// Whether the trees end with this line.
fn is_end(line: &str) -> bool {
    line == "end of trees" || line == "feature importances:"
}

/// Compares the blocks with `tree_sizes`, so that a file that was cut is found out.
fn check_sizes(blocks: &Blocks<'_>, ended: bool) -> Result<(), Fault> {
    let sizes = &blocks.sizes;
    let header = Block::new("header", &blocks.header);
    let whole = match header.get("tree_sizes") {
        None => false,
        Some(_) => {
            let expected: Vec<usize> = header.array("tree_sizes")?;
            header.length("tree_sizes", expected.len(), sizes.len())?;
            let differ = expected.iter().zip(sizes).position(|(expected, size)| expected != size);
            if let Some(tree) = differ {
                let (expected, found) = (expected[tree], sizes[tree]);
                let reason = format!("{expected} bytes by tree_sizes, found {found}");
                return Err(Fault::corrupt(format!("Tree={tree}"), reason));
            }
            !sizes.is_empty()
        }
    };
    if ended || whole {
        return Ok(());
    }
    Err(Fault::corrupt("end of file", "no `end of trees`: the file is cut short"))
}

/// The start of a line, for messages.
fn cut(line: &str) -> String {
    format!("{:?}", line.chars().take(40).collect::<String>())
}

/// One tree, and its leaves when it is linear.
fn tree(block: &Block<'_>) -> Result<(Tree, Option<Vec<LinearLeaf>>), Fault> {
    let leaves: Vec<f64> = block.array("leaf_value")?;
    let count = block.number::<usize>("num_leaves")?;
    if count == 0 {
        return Err(block.wrong("num_leaves", "expected at least 1, found 0"));
    }
    block.length("leaf_value", leaves.len(), count)?;
    let linear = match block.get("is_linear").map(str::trim) {
        None | Some("0") => None,
        Some("1") => Some(linear_leaves(block, count)?),
        Some(other) => {
            return Err(block.wrong("is_linear", format!("expected 0 or 1, found {}", cut(other))));
        }
    };
    let splits = if count == 1 { Vec::new() } else { splits(block, count - 1)? };
    Ok((Tree { splits, leaves, output: 0 }, linear))
}

fn splits(block: &Block<'_>, count: usize) -> Result<Vec<tokenmill_kernels::trees::Split>, Fault> {
    let features: Vec<u32> = block.exact("split_feature", count)?;
    let thresholds: Vec<f64> = block.exact("threshold", count)?;
    let decisions: Vec<i8> = match block.get("decision_type") {
        Some(_) => block.exact("decision_type", count)?,
        None => vec![0; count],
    };
    let left: Vec<i32> = block.exact("left_child", count)?;
    let right: Vec<i32> = block.exact("right_child", count)?;
    let mut sets = CategorySets::read(block)?;
    let split = |index: usize| {
        let (threshold, decision) = (thresholds[index], decisions[index]);
        let test = if decision & 1 == 1 {
            category_split(sets.take(block, threshold)?)
        } else {
            let missing = match decision >> 2 & 3 {
                0 => Missing::Nothing,
                1 => Missing::Zero,
                2 => Missing::NotANumber,
                _ => {
                    let reason = format!("{decision} at node {index} has no missing type");
                    return Err(block.wrong("decision_type", reason));
                }
            };
            missing.split(threshold, decision & 2 != 0)
        };
        Ok(node(features[index], test, [left[index], right[index]]))
    };
    (0..count).map(split).collect()
}

/// The bit sets of a tree's categorical nodes. Each belongs to one node, so that nodes cannot multiply them.
struct CategorySets {
    bounds: Vec<usize>,
    words: Vec<u32>,
    taken: Vec<bool>,
}

impl CategorySets {
    fn read(block: &Block<'_>) -> Result<Self, Fault> {
        let count = block.number::<usize>("num_cat")?;
        if count == 0 {
            return Ok(Self { bounds: Vec::new(), words: Vec::new(), taken: Vec::new() });
        }
        let bounds: Vec<usize> = block.array("cat_boundaries")?;
        block.length("cat_boundaries", bounds.len(), count.saturating_add(1))?;
        let words: Vec<u32> = block.array("cat_threshold")?;
        if !bounds.is_sorted() || bounds[count] > words.len() {
            let reason = format!("expected ascending bounds up to {} words", words.len());
            return Err(block.wrong("cat_boundaries", reason));
        }
        Ok(Self { bounds, words, taken: vec![false; count] })
    }

    fn take(&mut self, block: &Block<'_>, threshold: f64) -> Result<Vec<u32>, Fault> {
        let index = threshold as usize;
        let count = self.taken.len();
        if index as f64 != threshold || index >= count {
            let reason = format!("{threshold} is not the number of one of {count} category sets");
            return Err(block.wrong("threshold", reason));
        }
        if std::mem::replace(&mut self.taken[index], true) {
            let reason = format!("two nodes have the category set {index}");
            return Err(block.wrong("threshold", reason));
        }
        Ok(self.words[self.bounds[index]..self.bounds[index + 1]].to_vec())
    }
}

fn linear_leaves(block: &Block<'_>, count: usize) -> Result<Vec<LinearLeaf>, Fault> {
    let constants: Vec<f64> = block.exact("leaf_const", count)?;
    let lengths: Vec<usize> = block.exact("num_features", count)?;
    let features: Vec<u32> = block.array("leaf_features")?;
    let coefficients: Vec<f64> = block.array("leaf_coeff")?;
    let total = lengths.iter().try_fold(0usize, |sum, &length| sum.checked_add(length));
    let total = total.ok_or_else(|| block.wrong("num_features", "the sum is too large"))?;
    block.length("leaf_features", features.len(), total)?;
    block.length("leaf_coeff", coefficients.len(), total)?;
    let mut terms = features.into_iter().zip(coefficients);
    let leaf = |(constant, length): (f64, &usize)| LinearLeaf {
        constant,
        terms: terms.by_ref().take(*length).collect(),
    };
    Ok(constants.into_iter().zip(&lengths).map(leaf).collect())
}

/// Lines of `key=value`; of a key that is there twice, the last counts, as in the library.
struct Block<'a> {
    name: String,
    values: HashMap<&'a str, &'a str>,
}

impl<'a> Block<'a> {
    fn new(name: &str, lines: &[&'a str]) -> Self {
        let values = lines.iter().map(|line| line.split_once('=').unwrap_or((line, "")));
        Self { name: name.to_owned(), values: values.collect() }
    }

    fn wrong(&self, key: &str, reason: impl Into<String>) -> Fault {
        Fault::corrupt(format!("{}.{key}", self.name), reason)
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.values.get(key).copied()
    }

    fn words(&self, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.get(key).unwrap_or_default().split_ascii_whitespace()
    }

    fn required(&self, key: &str) -> Result<&'a str, Fault> {
        self.get(key).ok_or_else(|| self.wrong(key, "is missing"))
    }

    fn one<T: FromStr>(&self, key: &str, word: &str) -> Result<T, Fault> {
        let what = std::any::type_name::<T>();
        let wrong = |_| self.wrong(key, format!("expected numbers ({what}), found {}", cut(word)));
        word.parse().map_err(wrong)
    }

    fn number<T: FromStr>(&self, key: &str) -> Result<T, Fault> {
        self.one(key, self.required(key)?.trim())
    }

    fn array<T: FromStr>(&self, key: &str) -> Result<Vec<T>, Fault> {
        self.required(key)?;
        self.words(key).map(|word| self.one(key, word)).collect()
    }

    fn exact<T: FromStr>(&self, key: &str, length: usize) -> Result<Vec<T>, Fault> {
        let values = self.array(key)?;
        self.length(key, values.len(), length)?;
        Ok(values)
    }

    fn length(&self, key: &str, found: usize, expected: usize) -> Result<(), Fault> {
        if found == expected {
            return Ok(());
        }
        Err(self.wrong(key, format!("expected {expected} values, found {found}")))
    }
}
