package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// guardInterval is how often the table is looked for. Reloading a host's firewall commonly flushes all tables, which
// leaves environments without egress, and the host's services open to them, until the table is back.
const guardInterval = time.Second

// install makes the table with its rules and all elements there should be, in one transaction.
func (r *rules) install() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reinstall()
}

// reinstall does what install says. r.mu is held.
func (r *rules) reinstall() error {
	return r.transact(func() error {
		if err := r.addTable(); err != nil {
			return err
		}
		for set, elements := range r.held {
			for _, element := range elements {
				if err := r.conn.SetAddElements(set, []nftables.SetElement{element}); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// addTable puts all but the elements into the transaction.
func (r *rules) addTable() error {
	r.conn.AddTable(r.table)
	r.conn.AddChain(r.refusal)
	for _, chain := range r.chains {
		r.conn.AddChain(chain)
	}
	for _, set := range []*nftables.Set{r.members, r.policies, r.networks, r.targets, r.silent, r.counts} {
		if err := r.conn.AddSet(set, nil); err != nil {
			return err
		}
	}
	if err := r.conn.AddSet(r.servers, endpointElements(nil, r.nameServers)); err != nil {
		return err
	}
	if err := r.conn.AddSet(r.ranges, rangeElements(r.forbidden)); err != nil {
		return err
	}
	for _, chain := range r.program() {
		if chain.Hooknum != nil {
			r.conn.AddChain(chain.Chain)
		}
		for _, rule := range chain.rules {
			r.conn.AddRule(&nftables.Rule{Table: r.table, Chain: chain.Chain, Exprs: slices.Concat(rule...)})
		}
	}
	return nil
}

// add makes all the changes or none of them.
func (r *rules) add(changes ...change) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	err := r.apply((*nftables.Conn).SetAddElements, changes)
	if r.vanished(err) {
		if err = r.reinstall(); err == nil {
			err = r.apply((*nftables.Conn).SetAddElements, changes)
		}
	}
	if err != nil {
		return err
	}
	for _, change := range changes {
		if r.held[change.set] == nil {
			r.held[change.set] = map[string]nftables.SetElement{}
		}
		for _, element := range change.elements {
			r.held[change.set][string(element.Key)] = element
		}
	}
	return nil
}

// remove undoes add. All the elements must be there, unless somebody has removed the whole table.
func (r *rules) remove(changes ...change) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, change := range changes {
		for _, element := range change.elements {
			delete(r.held[change.set], string(element.Key))
		}
	}
	err := r.apply((*nftables.Conn).SetDeleteElements, changes)
	if r.vanished(err) {
		return nil
	}
	return err
}

// apply makes the changes in one transaction. r.mu is held.
func (r *rules) apply(how func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error, changes []change) error {
	return r.transact(func() error {
		for _, change := range changes {
			if len(change.elements) == 0 {
				continue
			}
			if err := how(r.conn, change.set, change.elements); err != nil {
				return err
			}
		}
		return nil
	})
}

// vanished reports whether err is because somebody has removed the table.
func (r *rules) vanished(err error) bool {
	if !errors.Is(err, unix.ENOENT) {
		return false
	}
	exists, err := tableExists(r.table.Name)
	return err == nil && !exists
}

// transact sends what fill puts into the connection. The connection is kept: closing one makes the kernel wait until
// everything that was ever removed is free. r.mu is held.
func (r *rules) transact(fill func() error) error {
	if r.conn == nil {
		conn, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return fmt.Errorf("connect to nftables: %w", err)
		}
		r.conn = conn
	}
	err := fill()
	if err == nil {
		err = r.conn.Flush()
	}
	if err != nil {
		_ = r.conn.CloseLasting() // answers that nobody has read may be waiting in it
		r.conn = nil
		return fmt.Errorf("change nftables table %s: %w", r.table.Name, err)
	}
	return nil
}

// close lets go of the connection. The table stays.
func (r *rules) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn != nil {
		_ = r.conn.CloseLasting()
		r.conn = nil
	}
}

// runGuard puts the table back when somebody has removed it. Open starts it, Close ends it and waits.
func (r *rules) runGuard(ctx context.Context, log *slog.Logger) {
	ticker := time.NewTicker(guardInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := r.guard(log); err != nil {
			log.Error("egress rules of environments not checked", "error", err)
		}
	}
}

func (r *rules) guard(log *slog.Logger) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	exists, err := tableExists(r.table.Name)
	if err != nil || exists {
		return err
	}
	log.Warn("egress rules of environments were removed from outside, they are put back", "table", r.table.Name)
	return r.reinstall()
}
