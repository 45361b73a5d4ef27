// Asks Go's own resolver what each line of its input says, as `TYPE NAME`.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"strings"
)

func ask(resolver *net.Resolver, kind, name string) (found []string) {
	ctx := context.Background()
	switch kind {
	case "A", "AAAA":
		network := map[string]string{"A": "ip4", "AAAA": "ip6"}[kind]
		all, _ := resolver.LookupNetIP(ctx, network, name)
		for _, address := range all {
			found = append(found, address.Unmap().String())
		}
	case "PTR":
		all, _ := resolver.LookupAddr(ctx, name)
		for _, name := range all {
			found = append(found, strings.TrimSuffix(name, "."))
		}
	case "SRV":
		_, all, _ := resolver.LookupSRV(ctx, "", "", name)
		for _, srv := range all {
			found = append(found, fmt.Sprintf("%d/%d/%d/%s", srv.Priority, srv.Weight, srv.Port, strings.TrimSuffix(srv.Target, ".")))
		}
	case "TXT":
		found, _ = resolver.LookupTXT(ctx, name)
	}
	return found
}

func main() {
	resolver := &net.Resolver{PreferGo: true}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		kind, name, _ := strings.Cut(lines.Text(), " ")
		fmt.Println(lines.Text(), "=", strings.Join(ask(resolver, kind, name), " "))
	}
}
