import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.Inet4Address;
import java.net.InetAddress;
import java.util.ArrayList;
import java.util.Hashtable;
import java.util.List;
import javax.naming.Context;
import javax.naming.directory.InitialDirContext;

/** Asks Java what each line of its input says, as `TYPE NAME`: addresses and names by InetAddress, the rest by JNDI. */
public class Resolve {
    static List<String> ask(String kind, String name) throws Exception {
        List<String> found = new ArrayList<>();
        switch (kind) {
            case "A", "AAAA" -> {
                for (InetAddress address : InetAddress.getAllByName(name)) {
                    if (address instanceof Inet4Address == kind.equals("A")) {
                        found.add(address.getHostAddress());
                    }
                }
            }
            case "PTR" -> {
                String host = InetAddress.getByName(name).getCanonicalHostName();
                if (!host.equals(InetAddress.getByName(name).getHostAddress())) {
                    found.add(host);
                }
            }
            default -> {
                Hashtable<String, String> settings = new Hashtable<>();
                settings.put(Context.INITIAL_CONTEXT_FACTORY, "com.sun.jndi.dns.DnsContextFactory");
                settings.put(Context.PROVIDER_URL, "dns://127.0.0.1/");
                var all = new InitialDirContext(settings).getAttributes(name, new String[] {kind}).get(kind);
                for (int at = 0; all != null && at < all.size(); at++) {
                    found.add(all.get(at).toString().replaceAll("[.]$", "").replace("\"", "").replace(' ', '/'));
                }
            }
        }
        return found;
    }

    public static void main(String[] args) throws Exception {
        var lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null; ) {
            List<String> found;
            try {
                found = ask(line.split(" ")[0], line.split(" ")[1]);
            } catch (java.net.UnknownHostException | javax.naming.NamingException none) {
                found = List.of();
            }
            System.out.println(line + " = " + String.join(" ", found));
        }
    }
}
