// Asks c-ares, by Node, what each line of its input says, as `TYPE NAME`. It knows no search list.
const dns = require("node:dns").promises;
const { readFileSync } = require("node:fs");

const ask = {
  A: (name) => dns.resolve4(name),
  AAAA: (name) => dns.resolve6(name),
  PTR: (address) => dns.reverse(address),
  SRV: async (name) => (await dns.resolveSrv(name)).map((s) => `${s.priority}/${s.weight}/${s.port}/${s.name}`),
  TXT: async (name) => (await dns.resolveTxt(name)).map((parts) => parts.join("")),
};

(async () => {
  for (const line of readFileSync(0, "utf8").split("\n").filter(Boolean)) {
    const [kind, name] = line.split(" ");
    const found = await ask[kind](name).catch(() => []);
    console.log(line, "=", found.join(" "));
  }
})();
