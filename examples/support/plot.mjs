// Line plots as SVG text. Observable Plot draws them; linkedom stands in for the browser's document.
import { line, dot, plot, ruleY, text } from '@observablehq/plot';
import { parseHTML } from 'linkedom';

const COLOURS = ['#1a6fb5', '#c2571a', '#2f8f4e', '#8a4fb0', '#b0343c', '#6b6b6b', '#a08a00', '#00868f'];

/**
 * One line per series through its points; the names stand above the picture.
 *
 * @param {object} options
 * @param {{ label: string, log?: boolean, ticks?: number[], domain?: number[] }} options.x
 * @param {{ label: string, log?: boolean, ticks?: number[], domain?: number[] }} options.y
 * @param {{ name: string, points: { x: number, y: number }[], singles?: { x: number, y: number }[], dashed?: boolean }[]} options.series
 *   `singles` are drawn as pale dots, e.g. the runs that a mean is of
 * @param {number[]} [options.rules] horizontal lines at these values
 * @returns {string} the SVG document
 */
export function linePlot({ x, y, series, rules = [] }) {
  const { document } = parseHTML('<!doctype html><html><body></body></html>');
  const flat = (pick) => series.flatMap((one) => (pick(one) ?? []).map((point) => ({ ...point, series: one.name })));
  const points = flat(({ points: own }) => own);
  const axis = ({ label, log, ticks, domain }) => ({
    label,
    type: log === true ? 'log' : 'linear',
    ...(ticks && { ticks, tickFormat: (value) => String(value) }),
    ...(domain && { domain }),
  });
  const marked = { x: 'x', y: 'y', stroke: 'series' };
  const picture = plot({
    document,
    width: 760,
    height: 400 + 16 * series.length,
    marginTop: 28 + 16 * series.length,
    marginLeft: 56,
    marginBottom: 44,
    marginRight: 28,
    style: { background: 'white', color: 'black', fontSize: '12px', fontFamily: 'sans-serif' },
    x: axis(x),
    y: { ...axis(y), grid: true },
    color: { domain: series.map(({ name }) => name), range: COLOURS },
    marks: [
      ruleY(rules, { stroke: '#888', strokeDasharray: '2 4' }),
      dot(
        flat(({ singles }) => singles),
        { x: 'x', y: 'y', fill: 'series', r: 3, fillOpacity: 0.4 },
      ),
      ...series.map(({ points: own, name, dashed }) =>
        line(
          own.map((point) => ({ ...point, series: name })),
          { ...marked, strokeWidth: 2, ...(dashed && { strokeDasharray: '5 4' }) },
        ),
      ),
      dot(points, { x: 'x', y: 'y', fill: 'series', r: 3 }),
      ...series.map(({ name }, row) =>
        text([name], { frameAnchor: 'top-left', fill: COLOURS[row % COLOURS.length], dy: -16 * (series.length - row) }),
      ),
    ],
  });
  picture.setAttribute('xmlns', 'http://www.w3.org/2000/svg');
  return `${picture.outerHTML}\n`;
}
