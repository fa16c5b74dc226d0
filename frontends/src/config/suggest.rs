//! The nearest of the names that exist, for a name that does not.

/// The candidate that takes the fewest changes of a letter, if that is few enough to have been meant.
pub(super) fn nearest(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let allowed = (name.chars().count() / 3).max(2);
    candidates
        .map(|candidate| (distance(name, &candidate), candidate))
        .filter(|(changes, _)| *changes <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to insert, remove or replace to come from `left` to `right`.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (number, letter) in left.chars().enumerate() {
        let mut next = vec![number + 1];
        let above_pairs = row.iter().zip(row.iter().skip(1));
        for ((diagonal, above), other) in above_pairs.zip(&right) {
            let before = next.last().copied().unwrap_or(0);
            let replaced = diagonal + usize::from(letter != *other);
            next.push(replaced.min(above + 1).min(before + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
