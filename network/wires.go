package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/lull-dev/lull"
	"github.com/lull-dev/lull/host"
)

// wires hands out wires and keeps some ready, because making one would be a good part of a cold start. A wire is used
// once: what an app has done to its namespace must not meet the next one.
type wires struct {
	name  string
	block block
	mtu   int
	rules *rules
	log   *slog.Logger
	low   chan struct{} // holds a token when there may be less ready than there should be

	mu    sync.Mutex // guards what follows
	ready []*wire
	fresh []int // subnets that can be used, longest unused first
	spent []int // subnets of wires that were cut; the kernel may still know connections of theirs

	recycling sync.Mutex // held while spent subnets are made fresh
	cutter    cutter
}

func newWires(slot *host.Slot, own block, rules *rules, log *slog.Logger) *wires {
	w := &wires{
		name:   slot.Name(),
		block:  own,
		mtu:    uplinkMTU(),
		rules:  rules,
		log:    log,
		low:    make(chan struct{}, 1),
		cutter: cutter{group: firstGroup + uint32(slot.Index())},
	}
	for index := range own.size() {
		w.spent = append(w.spent, index) // by an earlier node
	}
	return w
}

// take returns a wire that is ready, or makes one. The caller owns it and gives it back.
func (w *wires) take() (*wire, error) {
	defer w.wantMore()
	w.mu.Lock()
	if len(w.ready) > 0 {
		taken := w.ready[0]
		w.ready = w.ready[1:]
		w.mu.Unlock()
		return taken, nil
	}
	w.mu.Unlock()
	return w.make()
}

// give cuts a wire and removes what else there is about it in the rules.
func (w *wires) give(used *wire, policy ...change) error {
	err := errors.Join(w.cutter.cut(used), w.rules.remove(append(policy, w.rules.member(used))...))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spent = append(w.spent, used.index)
	return err
}

// close cuts the wires that nobody has taken. runFill must have ended.
func (w *wires) close() error {
	w.mu.Lock()
	ready := w.ready
	w.ready = nil
	w.mu.Unlock()
	errs := make([]error, len(ready))
	var giving sync.WaitGroup
	for i, wire := range ready {
		giving.Go(func() { errs[i] = w.give(wire) })
	}
	giving.Wait()
	return errors.Join(errs...)
}

func (w *wires) wantMore() {
	select {
	case w.low <- struct{}{}:
	default: // it has been said already
	}
}

// runFill keeps count wires ready. Open starts it, Close ends it and waits.
func (w *wires) runFill(ctx context.Context, count int) {
	w.wantMore()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.low:
		}
		for w.short(count) && ctx.Err() == nil {
			made, err := w.make()
			if err != nil {
				w.log.Warn("no network made ahead", "error", err) // the next Attach says so to whoever needs one
				break
			}
			w.mu.Lock()
			w.ready = append(w.ready, made)
			w.mu.Unlock()
		}
	}
}

func (w *wires) short(count int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.ready) < count && len(w.ready)+len(w.fresh)+len(w.spent) > count
}

func (w *wires) make() (*wire, error) {
	index, err := w.subnet()
	if err != nil {
		return nil, err
	}
	plan := wire{index: index, subnet: w.block.subnet(index), name: fmt.Sprintf("%s-%d", w.name, index)}
	made, err := strand(plan, w.mtu)
	if err == nil {
		if err = w.rules.add(w.rules.member(made)); err == nil {
			return made, nil
		}
		err = errors.Join(err, w.cutter.cut(made))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.spent = append(w.spent, index)
	return nil, err
}

// subnet returns one that is free.
func (w *wires) subnet() (int, error) {
	if index, ok := w.pop(); ok {
		return index, nil
	}
	w.recycling.Lock()
	defer w.recycling.Unlock()
	if index, ok := w.pop(); ok {
		return index, nil
	}
	if err := w.recycle(); err != nil {
		return 0, err
	}
	if index, ok := w.pop(); ok {
		return index, nil
	}
	return 0, &lull.Error{
		Kind:    lull.KindUnsupported,
		Message: fmt.Sprintf("all %d addresses of this node's environments (%s) are in use", w.block.size(), w.block.prefix),
		Hint:    "stop environments, or give the node a larger address pool",
	}
}

func (w *wires) pop() (int, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.fresh) == 0 {
		return 0, false
	}
	index := w.fresh[0]
	w.fresh = w.fresh[1:]
	return index, true
}

// recycle makes the spent subnets fresh. It removes the connections the kernel remembers for them: a packet that
// belongs to one would be let through without a look at the policy of the address's new owner.
func (w *wires) recycle() error {
	w.mu.Lock()
	spent := w.spent
	w.spent = nil
	w.mu.Unlock()

	earlier := map[netip.Addr]bool{}
	for _, index := range spent {
		earlier[w.block.subnet(index).environment()] = true
	}
	err := forgetConnections(func(addr netip.Addr) bool { return earlier[addr] })
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.spent = append(w.spent, spent...)
		return err
	}
	w.fresh = append(w.fresh, spent...)
	return nil
}
