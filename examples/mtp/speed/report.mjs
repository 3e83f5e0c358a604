// Table and plot of results.json.
import { markdownTable } from '../../support/experiment.mjs';
import { linePlot } from '../../support/plot.mjs';

/** Table S3 of the paper: 7 B parameters, bytes of code, trained with n = 8, by heads that decode. */
const PAPER = [
  { heads: 2, speedUp: 1.94 },
  { heads: 4, speedUp: 3.67 },
  { heads: 8, speedUp: 6.39, tokensPerPass: 7.04 },
];

const REPEATED = 16;

const sum = (values) => values.reduce((total, value) => total + value, 0);
const median = (values) => {
  const sorted = values.toSorted((a, b) => a - b);
  return (sorted[Math.floor((sorted.length - 1) / 2)] + sorted[Math.ceil((sorted.length - 1) / 2)]) / 2;
};

/** What decoding with so many heads gave, over all prompts. */
function summary({ texts }, temperature) {
  const measured = texts.flatMap(({ measurements }) => measurements.filter((one) => one.temperature === temperature));
  const of = (heads) => measured.filter((one) => one.heads === heads);
  const rate = ({ tokens, seconds }) => tokens / seconds; // texts may differ in length, by end of text
  const ordinary = of(1).map(rate);
  return [...new Set(measured.map(({ heads }) => heads))].map((heads) => {
    const all = of(heads);
    const total = (pick) => sum(all.map((one) => pick(one) ?? 0));
    const tokensPerPass = total(({ tokens }) => tokens) / total(({ passes }) => passes);
    const speedUp = median(all.map((one, index) => rate(one) / ordinary[index]));
    return {
      heads,
      tokensPerPass,
      speedUp,
      /** Time of a pass against an ordinary one. */
      cost: median(all.map((one, index) => one.tokens / one.passes / (rate(one) / ordinary[index]))),
      /** How often the last head's guess stood, and all before it. */
      stood: total(({ accepted }) => accepted[heads - 2]) / total(({ proposed }) => proposed[heads - 2]),
      same: all.filter(({ same }) => same).length,
    };
  });
}

/** Share of the places of a text whose 16 bytes stand in it before. */
function repetition({ text }) {
  const places = Array.from({ length: Math.max(0, text.length - REPEATED) }, (_, start) => start);
  return (
    sum(places.map((start) => (text.indexOf(text.slice(start, start + REPEATED)) < start ? 1 : 0))) / places.length
  );
}

const times = (value) => (value === undefined ? '' : `${value.toFixed(2)}x`);

export function table(results) {
  const sampled = summary(results, 0.8);
  const rows = summary(results, 0).map(({ heads, tokensPerPass, cost, speedUp, stood, same }) => {
    const find = (list) => list.find((row) => row.heads === heads);
    return [
      heads,
      tokensPerPass.toFixed(2),
      heads === 1 ? '' : `${(100 * stood).toFixed(0)} %`,
      times(cost),
      times(speedUp),
      heads === 1 ? '' : `${same} of ${results.texts.length}`,
      find(sampled)?.tokensPerPass.toFixed(2) ?? '',
      times(find(sampled)?.speedUp),
      find(PAPER)?.tokensPerPass?.toFixed(2) ?? '',
      times(find(PAPER)?.speedUp),
    ];
  });
  const greedy = ['heads', 'bytes a pass', 'last head stands', 'cost of a pass', 'speed-up', 'same text'];
  const others = ['sampled: bytes a pass', 'speed-up', 'paper: bytes a pass', 'speed-up'];
  const { tokensPerPass } = results.trueText;
  const repeated = (100 * median(results.texts.map(repetition))).toFixed(0);
  return [
    markdownTable([...greedy, ...others], rows),
    '',
    `Held-out loss: ${results.valLoss.toFixed(4)} nats per byte. On true text instead of the model's own, all eight heads would give`,
    `${tokensPerPass.toFixed(2)} bytes a pass. Places in the greedy texts whose next ${REPEATED} bytes the text had before: ${repeated} % (median).`,
  ].join('\n');
}

export function draw(results) {
  const lines = (temperature, key) => summary(results, temperature).map((row) => ({ x: row.heads, y: row[key] }));
  const [greedy, sampled] = [0, 0.8];
  return linePlot({
    x: { label: 'heads that decode', ticks: lines(greedy, 'heads').map(({ x }) => x) },
    y: { label: 'times ordinary decoding' },
    rules: [1, 2],
    series: [
      { name: 'greedy: bytes a pass', points: lines(greedy, 'tokensPerPass'), dashed: true },
      { name: 'greedy: speed-up', points: lines(greedy, 'speedUp') },
      { name: 'temperature 0.8: bytes a pass', points: lines(sampled, 'tokensPerPass'), dashed: true },
      { name: 'temperature 0.8: speed-up', points: lines(sampled, 'speedUp') },
      { name: 'paper, 7 B, code: speed-up', points: PAPER.map(({ heads, speedUp }) => ({ x: heads, y: speedUp })) },
    ],
  });
}
