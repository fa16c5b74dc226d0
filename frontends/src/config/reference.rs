//! The reference table of all keys, made from their declarations, so that the page cannot disagree with the code.

use super::keys::KEYS;

/// A Markdown table with a row for each key.
#[must_use]
pub fn reference() -> String {
    let mut text =
        String::from("| key | flag | variable | default | allowed | meaning |\n|---|---|---|---|---|---|\n");
    for key in KEYS {
        let default =
            if key.default.is_empty() { "(empty)".to_owned() } else { format!("`{}`", key.default) };
        let row = format!(
            "| `{}` | `--{}` | `{}` | {default} | {} | {} |\n",
            key.name,
            key.flag(),
            key.variable(),
            (key.allowed)(),
            key.doc,
        );
        text.push_str(&row);
    }
    text
}
