//! Numbers: constants as the source computes them, and quantities as the documents write them.

/// Constants that name each other are followed this far.
const DEPTH_MAX: usize = 8;

/// The value of the constant `name` in `source`, if it is made of numbers and of other constants of the same file
/// with `+`, `*` and `<<`.
pub(super) fn value_of(source: &str, name: &str) -> Option<u64> {
    at_depth(source, name, DEPTH_MAX)
}

fn at_depth(source: &str, name: &str, depth: usize) -> Option<u64> {
    let depth = depth.checked_sub(1)?;
    let (_, rest) = source.split_once(&format!("const {name}: "))?;
    let (_, rest) = rest.split_once(" = ")?;
    let (expression, _) = rest.split_once(';')?;
    // In this order the weakest binds last: shifts, sums, products.
    let operand = |text: &str| {
        let text = text.trim();
        let digits = text.replace('_', "");
        digits.parse().ok().or_else(|| at_depth(source, text, depth))
    };
    let product = |text: &str| text.split('*').map(operand).try_fold(1_u64, |all, one| all.checked_mul(one?));
    let sum = |text: &str| text.split('+').map(product).try_fold(0_u64, |all, one| all.checked_add(one?));
    let mut parts = expression.split("<<").map(sum);
    let first = parts.next()??;
    parts.try_fold(first, |value, shift| value.checked_shl(u32::try_from(shift?).ok()?))
}

/// What a document means by `16 MiB + 48 bytes`, `65,536` or `5`.
pub(super) fn quantity(text: &str) -> Option<u64> {
    text.split('+').map(term).try_fold(0_u64, |all, one| all.checked_add(one?))
}

fn term(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let number: u64 = words.next()?.replace(',', "").parse().ok()?;
    let unit = match words.next() {
        Some("KiB") => 1 << 10,
        Some("MiB") => 1 << 20,
        Some("GiB") => 1 << 30,
        Some(_) | None => 1,
    };
    number.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_are_computed_as_the_source_computes_them() {
        let source = "pub const A: u64 = 48 + B;\nconst B: u64 = 16 << 20;\nconst C: usize = 60 * 1_000 + 1;\nconst D: u64 = D;\n";
        assert_eq!(value_of(source, "A"), Some(48 + (16 << 20)));
        assert_eq!(value_of(source, "C"), Some(60_001));
        assert_eq!(value_of(source, "D"), None, "no end");
        assert_eq!(value_of(source, "E"), None);
    }

    #[test]
    fn quantities_are_read_as_people_write_them() {
        assert_eq!(quantity("16 MiB + 48 bytes"), Some(48 + (16 << 20)));
        assert_eq!(quantity("65,536"), Some(65_536));
        assert_eq!(quantity("some"), None);
    }
}
