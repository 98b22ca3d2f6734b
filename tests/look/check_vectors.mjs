// Says where the page's fits differ from the table: node check_vectors.mjs WEB_FOLDER VECTORS
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [folder, file] = process.argv.slice(2);
const load = (name) => import(pathToFileURL(`${folder}/${name}`).href);
const { fitted } = await load("refit.js");
const { correctionMap, smallestDeterminant, unfoldedCorrection } =
  await load("local_correction.js");
const { fits, corrections } = JSON.parse(readFileSync(file, "utf-8"));

const furthest = (a, b) => Math.max(...a.flat().map((x, i) => Math.abs(x - b.flat()[i])));
const answers = {};
for (const { name, fixed, moving, weights, family, smoothing, probes, expected } of fits) {
  const map = fitted(family, fixed, moving, weights, smoothing);
  answers[name] = furthest(probes.map(map), expected);
}
for (const { name, points, shifts, reach, probes, expected } of corrections) {
  const correction = unfoldedCorrection(points, shifts, reach);
  answers[name] = Math.max(
    furthest(probes.map(correctionMap(correction)), expected.places),
    Math.abs(correction.reach - expected.reach),
    Math.abs(smallestDeterminant(correction) - expected.smallest),
  );
}
process.stdout.write(JSON.stringify(answers));
