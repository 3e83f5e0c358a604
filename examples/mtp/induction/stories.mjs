// Children's stories out of templates, and the same stories about somebody with a name that nobody has.
import { randomKey, uniformValues } from '@llmx/core';

const CAPITALS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ';
/** How many names the training set has, of 676: about nineteen for each first letter. */
const KNOWN_NAMES = 500;

const WORDS = {
  thing: ['ball', 'book', 'box', 'boat', 'kite', 'hat', 'cake', 'train', 'map', 'lamp'],
  place: ['park', 'garden', 'forest', 'lake', 'market', 'house', 'beach', 'school', 'farm', 'hill'],
  mood: ['happy', 'sad', 'tired', 'glad', 'afraid', 'proud', 'angry', 'hungry'],
};

// {a} and {b} are the two children; who is who is drawn for each sentence.
const OPENINGS = ['{a} and {b} were friends.', '{a} met {b} at the {place}.', 'Near the {place} lived {a} and {b}.'];
const SENTENCES = [
  '{a} saw {b}.',
  '{a} called {b}.',
  '{a} was {mood}.',
  '{a} helped {b}.',
  '{a} gave {b} a {thing}.',
  '{a} and {b} ran to the {place}.',
  '"Come, {a}," said {b}.',
  '"Is it your {thing}, {a}?" asked {b}.',
  '"{a}!" said {b}. "I am {mood}."',
  '{a} hid, and {b} looked for {a}.',
  '{a} and {b} played with the {thing}.',
  'Then {a} went to the {place}, and {b} too.',
];

const [FEWEST, MOST] = [5, 8]; // sentences after the opening
const NUMBERS = 96; // more than any story draws

/** Draws in order from keyed random numbers. */
function dice(seed, path) {
  const numbers = uniformValues(randomKey(seed, 'stories', path), NUMBERS);
  let used = 0;
  const below = (count) => Math.floor(numbers[used++] * count);
  return { below, of: (list) => list[below(list.length)] };
}

/** Two letters, which are two tokens. */
const randomName = ({ of }) => of(CAPITALS) + of(CAPITALS.toLowerCase());

const KNOWN = Array.from(CAPITALS, (first) => Array.from(CAPITALS.toLowerCase(), (second) => first + second))
  .flat()
  .map((name, index) => ({ name, rank: dice(0, `name/${index}`).below(2 ** 24) }))
  .toSorted((a, b) => a.rank - b.rank)
  .slice(0, KNOWN_NAMES)
  .map(({ name }) => name);

/** A name that no story of the training set has. */
function newName(naming) {
  for (;;) {
    const name = randomName(naming);
    if (!KNOWN.includes(name)) return name;
  }
}

/** Two names with different first letters. */
function pair(draw) {
  const first = draw();
  for (;;) {
    const second = draw();
    if (second[0] !== first[0]) return [first, second];
  }
}

/**
 * Story `index` of a set.
 *
 * @param {{ set: 'train' | 'test', names: 'known' | 'new', seed: number }} options
 * @param {number} index
 * @returns {{ text: string, repeated: number[] }} `repeated`: places of the second letters of names that were mentioned before
 */
export function story({ set, names, seed }, index) {
  const { below, of } = dice(seed, `${set}/${index}`);
  const naming = dice(seed, `${set}/${index}/${names}`);
  const [a, b] = pair(() => (names === 'known' ? naming.of(KNOWN) : newName(naming)));
  const sentences = Array.from({ length: FEWEST + below(MOST - FEWEST + 1) }, () => SENTENCES);
  const mentioned = new Set();
  const repeated = [];
  let text = '';
  for (const templates of [OPENINGS, ...sentences]) {
    const children = below(2) === 0 ? { a, b } : { a: b, b: a };
    for (const piece of of(templates).split(/\{(\w+)\}/)) {
      const name = children[piece];
      if (name === undefined) {
        text += piece in WORDS ? of(WORDS[piece]) : piece;
        continue;
      }
      if (mentioned.has(name)) repeated.push(text.length + 1);
      mentioned.add(name);
      text += name;
    }
    text += ' ';
  }
  return { text, repeated };
}
