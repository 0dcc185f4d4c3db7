import { createHash } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { defineConfig } from "vite";

const NOTICE =
  "/*! unvanish viewer (Apache-2.0), with Apache ECharts (Apache-2.0, The Apache Software Foundation), " +
  "ZRender (BSD-3-Clause, Baidu Inc.) and tslib (0BSD, Microsoft); texts in THIRD_PARTY.txt */\n";

/** A hash of all that the viewer is made from. tests/present/test_html.py computes it too, without Node. */
function sources() {
  const files = readdirSync("src", { recursive: true }).map((name) => `src/${name.replaceAll("\\", "/")}`);
  const all = ["package-lock.json", "vite.config.js", ...files.filter((name) => statSync(name).isFile())].sort();
  const hash = createHash("sha256");
  for (const name of all) hash.update(name).update("\0").update(readFileSync(name)).update("\0");
  return hash.digest("hex");
}

// One script and one style sheet, committed in the package: whoever only writes Python never needs Node.
export default defineConfig({
  build: {
    target: "es2021",
    outDir: "../src/unvanish/present/assets",
    emptyOutDir: false, // the licences of what is bundled lie there too
    cssCodeSplit: false,
    chunkSizeWarningLimit: 1500,
    lib: {
      entry: "src/main.ts",
      formats: ["iife"],
      name: "UnvanishViewer",
      fileName: () => "viewer.js",
      cssFileName: "viewer",
    },
  },
  plugins: [
    {
      // the minifier drops comments, and every page carries this script: it names whose work is in it
      name: "notice",
      enforce: "post",
      generateBundle(_, bundle) {
        const stamp = `/*! made from ${sources()} */\n`;
        for (const part of Object.values(bundle)) {
          if (part.type === "chunk") part.code = NOTICE + stamp + part.code;
          else part.source = stamp + part.source;
        }
      },
    },
  ],
  define: { "process.env.NODE_ENV": JSON.stringify("production") },
});
