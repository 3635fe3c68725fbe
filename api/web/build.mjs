/**
 * Builds what the viewer ships in static/vendor/: each library as one ES module, our elements as one script for the
 * single-file export, the libraries' licences, and their versions. `--check` builds in memory and compares.
 *
 * The output depends on package-lock.json and this folder alone, bit for bit, on every platform.
 */
import { build } from "esbuild";
import { mkdir, readFile, readdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const STATIC = join(HERE, "../cudaforge_api/viewer/static");
const OUT = join(STATIC, "vendor");
/** From there. */
const TESTS = "../../../../../tests/viewer/vendor";
const TARGET = ["chrome120", "firefox121", "safari17.2"];

/** @type {import("esbuild").BuildOptions} */
const COMMON = {
  absWorkingDir: HERE,
  bundle: true,
  format: "esm",
  minify: true,
  target: TARGET,
  charset: "utf8",
  legalComments: "none",
  metafile: true,
  write: false,
  logLevel: "warning",
};

/**
 * A library as an ES module. It also registers itself under `cudaforgeLibraries`: an exported page has it as an inline
 * module, which nothing can import from.
 * @param {string} name
 */
async function library(name) {
  const source = `import * as library from "./${name}.js";
    (globalThis.cudaforgeLibraries ??= {}).${name} = library;
    export * from "./${name}.js";`;
  const result = await build({
    ...COMMON,
    stdin: { contents: source, resolveDir: join(HERE, "libraries"), sourcefile: `${name}-entry.js` },
  });
  return { text: result.outputFiles[0].text, inputs: Object.keys(result.metafile.inputs) };
}

/** Our elements in one inline module; the libraries that it needs stand before it in the page. */
async function elements() {
  const result = await build({ ...COMMON, entryPoints: [join(STATIC, "viewer.js")], external: ["./vendor/*"] });
  return result.outputFiles[0].text;
}

/** The packages whose code is in a bundle, as `node_modules/NAME`. @param {string[]} inputs */
function packagesOf(inputs) {
  const names = inputs.map((path) => path.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1]);
  return [...new Set(names.filter((name) => name !== undefined))].sort();
}

/** @param {string} name */
async function licence(name) {
  const folder = join(HERE, "node_modules", name);
  const about = JSON.parse(await readFile(join(folder, "package.json"), "utf8"));
  const file = (await readdir(folder)).find((entry) => /^licen[cs]e/i.test(entry));
  if (!file) throw new Error(`${name} has no licence file`);
  const text = (await readFile(join(folder, file), "utf8")).replace(/\r\n/g, "\n").trim();
  return { name, version: about.version, licence: about.license, text };
}

async function outputs() {
  const [plot, codemirror, exported] = await Promise.all([library("plot"), library("codemirror"), elements()]);
  const packages = await Promise.all(packagesOf([...plot.inputs, ...codemirror.inputs]).map(licence));
  const versions = (/** @type {string[]} */ inputs) =>
    packagesOf(inputs).map((name) => `${name} ${packages.find((each) => each.name === name)?.version}`);
  const head = (/** @type {string[]} */ inputs) =>
    `/* Built by \`make vendor\` from ${versions(inputs).join(", ")}. Licences: LICENSES.txt */\n`;
  /** @type {Record<string, string>} */
  const files = {
    "plot.js": head(plot.inputs) + plot.text,
    "codemirror.js": head(codemirror.inputs) + codemirror.text,
    "elements.js":
      "/* Built by `make vendor` from ../viewer.js and what it imports, for the single-file export. */\n" + exported,
    "versions.json":
      JSON.stringify(
        Object.fromEntries(packages.map(({ name, version, licence }) => [name, { version, licence }])),
        null,
        2,
      ) + "\n",
    "LICENSES.txt":
      "The libraries in this folder contain code of these packages.\n" +
      packages
        .map((each) => `\n${"-".repeat(80)}\n${each.name} ${each.version} (${each.licence})\n\n${each.text}\n`)
        .join(""),
  };
  for (const name of ["plot", "codemirror"])
    files[`${name}.d.ts`] = `export * from "../../../../web/libraries/${name}.js";\n`;
  for (const [name, text] of Object.entries(files)) {
    // An exported page has these texts between script tags, which this would end or turn inside out.
    if (name.endsWith(".js") && /<\/script|<!--/i.test(text)) throw new Error(`${name} cannot stand in a page`);
  }
  return { ...files, ...(await forTests()) };
}

/** What the tests load into a page, as it comes: it is shipped to nobody. */
async function forTests() {
  const folder = join(HERE, "node_modules/axe-core");
  const text = (/** @type {string} */ name) => readFile(join(folder, name), "utf8");
  return {
    [`${TESTS}/axe.min.js`]: await text("axe.min.js"),
    [`${TESTS}/axe.LICENSE.txt`]: `${await text("LICENSE")}\n${await text("LICENSE-3RD-PARTY.txt")}`,
  };
}

const files = await outputs();
if (process.argv.includes("--check")) {
  const stored = (/** @type {string} */ name) => readFile(join(OUT, name), "utf8").catch(() => "");
  const stale = [];
  for (const name of Object.keys(files)) if ((await stored(name)) !== files[name]) stale.push(name);
  if (stale.length) {
    console.error(`What is vendored is not what its sources make: ${stale.join(", ")}. Run make vendor.`);
    process.exit(1);
  }
} else {
  await mkdir(OUT, { recursive: true });
  for (const [name, text] of Object.entries(files)) await writeFile(join(OUT, name), text);
}
