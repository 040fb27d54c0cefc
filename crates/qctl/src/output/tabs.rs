//! Elastic tabstops: aligns tab-terminated cells of neighbouring lines, like Go's `text/tabwriter` in kubectl.

/// Aligns `text`. Each cell is as wide as the widest of its column block, plus `padding` spaces.
#[must_use]
pub fn align(text: &str, padding: usize) -> String {
    let ends_with_newline = text.ends_with('\n');
    let body = text.strip_suffix('\n').unwrap_or(text);
    let lines: Vec<Vec<&str>> = body.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut out = String::with_capacity(text.len() * 2);
    block(&lines, &mut Vec::new(), padding, &mut out);
    if !ends_with_newline {
        out.pop();
    }
    out
}

/// Lays out lines that share the columns of `widths`, looking for blocks of lines with one more column.
fn block(lines: &[Vec<&str>], widths: &mut Vec<usize>, padding: usize, out: &mut String) {
    let column = widths.len();
    let mut from = 0;
    let mut at = 0;
    while at < lines.len() {
        if column + 1 >= lines[at].len() {
            at += 1;
            continue;
        }
        write(&lines[from..at], widths, out);
        let start = at;
        let mut width = 0;
        while at < lines.len() && column + 1 < lines[at].len() {
            width = width.max(lines[at][column].chars().count() + padding);
            at += 1;
        }
        // A column of empty cells has only its padding.
        widths.push(width);
        block(&lines[start..at], widths, padding, out);
        widths.pop();
        from = at;
    }
    write(&lines[from..], widths, out);
}

fn write(lines: &[Vec<&str>], widths: &[usize], out: &mut String) {
    for line in lines {
        for (index, cell) in line.iter().enumerate() {
            out.push_str(cell);
            if let Some(width) = widths.get(index).filter(|_| index + 1 < line.len()) {
                out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            }
        }
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::align;

    #[test]
    fn neighbouring_lines_share_columns() {
        let text = "Name:\tweb\nService Account:\tdefault\nContainers:\n  c:\n    Image:\tx\n    Restart Count:\t0\n";
        assert_eq!(
            align(text, 2),
            "Name:             web\nService Account:  default\nContainers:\n  c:\n    Image:          x\n    Restart Count:  0\n"
        );
    }

    #[test]
    fn cells_are_aligned_and_the_last_one_is_not_padded() {
        assert_eq!(
            align("  Type\tReason\tAge\n  ----\t------\t---\n  Normal\tScheduled\t5s\n", 2),
            "  Type    Reason     Age\n  ----    ------     ---\n  Normal  Scheduled  5s\n"
        );
    }
}
