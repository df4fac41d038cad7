//! Checkpoints that are damaged in their meaning and not in their checksums: one value of one section is another.

use stream::{Form, Reader, Section, Value, Writer};

/// A checkpoint with another value somewhere in the sections of these names, and where. `choose` gives numbers that decide where and what.
pub fn damaged(checkpoint: &[u8], sections_in_question: impl Fn(&str) -> bool, choose: &mut impl FnMut() -> u64) -> (Vec<u8>, String) {
    let mut reader = Reader::new(checkpoint).expect("a stream");
    let mut sections = Vec::new();
    while let Some(section) = reader.next_section().expect("a whole stream") {
        sections.push(section);
    }
    let is_in_question = |section: &Section| section.form() == Form::Value && sections_in_question(section.name());
    let values: Vec<usize> = (0..sections.len()).filter(|at| is_in_question(&sections[*at])).collect();
    let at = values[choose() as usize % values.len()];
    let mut tree = sections[at].tree().expect("a value");
    let mut place = sections[at].name().to_owned();
    damage(&mut tree, &mut place, choose);
    let remade = Section::value(sections[at].name(), sections[at].version(), &tree).expect("a value that was read can be written");
    sections[at] = if sections[at].is_optional() { remade.optional() } else { remade };
    let mut writer = Writer::new(Vec::new()).expect("vectors take everything");
    for section in &sections {
        writer.section(section).expect("vectors take everything");
    }
    (writer.finish().expect("vectors take everything"), place)
}

fn damage(value: &mut Value, place: &mut String, choose: &mut impl FnMut() -> u64) {
    let choice = choose();
    match value {
        Value::Map(map) if !map.is_empty() => {
            let at = choice as usize % map.len();
            *place += &format!(".{}", map[at].0.as_text().unwrap_or("?"));
            if choose().is_multiple_of(16) {
                map.remove(at);
                *place += " removed";
            } else {
                damage(&mut map[at].1, place, choose);
            }
        }
        Value::Array(list) if !list.is_empty() => {
            let at = choice as usize % list.len();
            *place += &format!(".{at}");
            match choose() % 16 {
                0 => drop(list.remove(at)),
                1 => list.push(list[at].clone()),
                _ => damage(&mut list[at], place, choose),
            }
        }
        Value::Integer(number) => {
            let old = i128::from(*number) as u64;
            let new = match choice % 6 {
                0 => 0,
                1 => u64::MAX,
                2 => old ^ 1 << (choose() % 64),
                3 => old.wrapping_add(1),
                4 => choose(),
                _ => choose() % 256,
            };
            *place += &format!(": {old:#x} became {new:#x}");
            *number = new.into();
        }
        Value::Bool(flag) => *flag = !*flag,
        Value::Text(text) => *text = ["", "zen3", "skylake-server", "Halted", "none", "x"][choice as usize % 6].to_owned(),
        Value::Bytes(bytes) => bytes.push(choice as u8),
        other => *other = Value::Integer(choice.into()),
    }
}
