package host

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

func checkCgroups() Finding {
	detail, err := cgroupControllers(cgroupRoot)
	return found("cgroups", detail, err,
		"mount the hierarchy (`mount -t cgroup2 none /sys/fs/cgroup`), and add cgroup_enable=memory to the kernel's command line where that controller is missing")
}

// cgroupControllers says which version is mounted, if it has the controllers that limits need and can be written to.
func cgroupControllers(root string) (string, error) {
	needed := []string{"memory", "cpu", "pids"}
	detail, dirs := "version 2", []string{root}
	data, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	has := func(name string) bool { return slices.Contains(strings.Fields(string(data)), name) }
	if errors.Is(err, os.ErrNotExist) {
		detail, dirs = "version 1", nil
		needed = append(needed, "cpuacct")
		for _, name := range needed {
			dirs = append(dirs, filepath.Join(root, name))
		}
		has = func(name string) bool {
			_, err := os.Stat(filepath.Join(root, name, "cgroup.procs"))
			return err == nil
		}
	}
	for _, name := range needed {
		if !has(name) {
			return "", fmt.Errorf("%s, the %s controller is missing", detail, name)
		}
	}
	for _, dir := range dirs {
		if err := unix.Access(dir, unix.W_OK); err != nil {
			return "", fmt.Errorf("%s cannot be written to: %w", dir, err)
		}
	}
	return detail + ": " + strings.Join(needed, ", "), nil
}

var errNeedsRoot = errors.New("only root can find out")

// inNewNamespace runs fn in a network namespace that ends with it.
func inNewNamespace(fn func() error) error {
	if os.Geteuid() != 0 {
		return errNeedsRoot
	}
	return Elsewhere(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make network namespace: %w", err)
		}
		return fn()
	})
}

func checkVeth() Finding {
	err := inNewNamespace(func() error {
		pair := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "lull-b", PeerTxQLen: -1}
		pair.Name = "lull-a"
		if err := netlink.LinkAdd(pair); err != nil {
			return fmt.Errorf("make veth pair: %w", err)
		}
		return nil
	})
	return found("veth", "pairs of interfaces can be made", err, "run as root; load the module: `modprobe veth`")
}

// checkNftables makes a table with everything the rules of environments need, where it takes no effect.
func checkNftables() Finding {
	err := inNewNamespace(func() error {
		conn, err := nftables.New()
		if err != nil {
			return err
		}
		table := conn.AddTable(&nftables.Table{Name: "lull", Family: nftables.TableFamilyINet})
		forward := conn.AddChain(&nftables.Chain{Table: table, Name: "forward", Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter})
		out := conn.AddChain(&nftables.Chain{Table: table, Name: "out", Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource})
		ranges := &nftables.Set{Table: table, Name: "ranges", ID: 1, Interval: true, Concatenation: true,
			KeyType: nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr)}
		if err := conn.AddSet(ranges, nil); err != nil {
			return err
		}
		conn.AddRule(&nftables.Rule{Table: table, Chain: forward, Exprs: []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
			&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED},
		}})
		conn.AddRule(&nftables.Rule{Table: table, Chain: out, Exprs: []expr.Any{&expr.Masq{}}})
		if err := conn.Flush(); err != nil {
			return fmt.Errorf("make nftables rules: %w", err)
		}
		return nil
	})
	return found("nftables", "rules with sets, connection state, masquerading and rejects can be made; the nft program is not needed", err,
		"run as root; load the modules: `modprobe -a nf_tables nft_ct nft_masq nft_reject_inet`")
}

// checkFirewall looks for firewalls that drop what environments send and get.
func checkFirewall() Finding {
	const name = "firewall"
	if os.Geteuid() != 0 {
		return found(name, "", errNeedsRoot, "run as root")
	}
	conn, err := nftables.New()
	if err != nil {
		return found(name, "", err, "")
	}
	chains, err := conn.ListChains()
	if err != nil {
		return found(name, "", fmt.Errorf("list firewall chains: %w", err), "")
	}
	for _, chain := range chains {
		if !dropsForwarded(chain) {
			continue
		}
		if known, err := mentionsLull(conn, chain.Table); err != nil || known {
			continue
		}
		return found(name, "", fmt.Errorf("table %s drops forwarded packets by default, also those of environments", chain.Table.Name), firewallFix(chain))
	}
	return Finding{Name: name, OK: true, Detail: "none that drops the packets of environments"}
}

func dropsForwarded(chain *nftables.Chain) bool {
	return chain.Hooknum != nil && *chain.Hooknum == *nftables.ChainHookForward &&
		chain.Policy != nil && *chain.Policy == nftables.ChainPolicyDrop && chain.Table.Family != nftables.TableFamilyIPv6
}

// mentionsLull reports whether a table has a rule about interfaces whose names begin with lull.
func mentionsLull(conn *nftables.Conn, table *nftables.Table) (bool, error) {
	chains, err := conn.ListChainsOfTableFamily(table.Family)
	if err != nil {
		return false, err
	}
	for _, chain := range chains {
		if chain.Table.Name != table.Name {
			continue
		}
		rules, err := conn.GetRules(table, chain)
		if err != nil {
			return false, err
		}
		for _, rule := range rules {
			if slices.ContainsFunc(rule.Exprs, comparesLull) {
				return true, nil
			}
		}
	}
	return false, nil
}

func comparesLull(e expr.Any) bool {
	compare, ok := e.(*expr.Cmp)
	return ok && bytes.HasPrefix(compare.Data, []byte("lull"))
}

// firewallFix is what to run. What is put into Docker's own chain survives its restarts.
func firewallFix(chain *nftables.Chain) string {
	if chain.Name == "FORWARD" {
		return "if Docker runs here: `iptables -I DOCKER-USER -i lull+ -j ACCEPT; iptables -I DOCKER-USER -o lull+ -j ACCEPT`, else the same with FORWARD"
	}
	family := map[nftables.TableFamily]string{nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip"}[chain.Table.Family]
	target := fmt.Sprintf("nft insert rule %s %s %s", family, chain.Table.Name, chain.Name)
	return fmt.Sprintf("`%s iifname 'lull*' accept; %s oifname 'lull*' accept`", target, target)
}

func checkNameServers() Finding {
	servers, err := NameServers()
	return found("name servers", fmt.Sprint(servers), err, "put a name server with an IPv4 address that is not loopback into /etc/resolv.conf")
}
