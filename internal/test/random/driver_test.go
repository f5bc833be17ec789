// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package random

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/rollcall-grpc/rollcall"
)

// world is an etcd, its clients, and what can go wrong with them.
type world interface {
	client(i int) *clientv3.Client
	direct() *clientv3.Client // without the faults of the other clients
	// fault runs a step, or nothing if it makes no sense. It passes what loses the data of the
	// store to losing.
	fault(op string, i int, losing func(lose func()))
	heal()
	patience() patience
	cacheDir(i int) string // of a client's Directory; "": none
}

const registrationTTL = 10 * time.Second

var silent = slog.New(slog.DiscardHandler) // what goes wrong here is meant to

// driver plays one history.
type driver struct {
	w           world
	truth       truth
	lister      *rollcall.Directory
	directories []*rollcall.Directory
	registrars  []*rollcall.Registrar
	consumers   []consumer
	regs        map[string]*rollcall.Registration // by key; those that are to be there
	left        map[string]bool                   // keys of those that are not
	versions    map[string]string                 // by key: what its registration was last updated to
	statuses    map[string]string                 // by key: what it was at the last check
	edited      map[string]bool                   // keys that an operator has edited since
	writes      int
	lost        int       // how often the store lost its data
	lostAt      time.Time // when it last did
	checked     time.Time // when the last check ended
	halfOpen    bool      // connections were half-open: a consistency check may be the first to notice
	checks      int
	slowest     time.Duration
}

func newDriver(w world) (d *driver, err error) {
	d = &driver{w: w, regs: make(map[string]*rollcall.Registration), left: make(map[string]bool), versions: make(map[string]string),
		statuses: make(map[string]string), edited: make(map[string]bool)}
	if d.lister, err = rollcall.NewDirectory(w.direct(), rollcall.DirectoryOptions{}); err != nil {
		return nil, err
	}
	if err := d.truth.begin(w.direct()); err != nil {
		return nil, err
	}
	for i := range clients {
		if err := d.open(i); err != nil {
			d.close()
			return nil, err
		}
	}
	return d, nil
}

// open opens a client's consumers.
func (d *driver) open(i int) error {
	client := d.w.client(i)
	dir, err := rollcall.NewDirectory(client, rollcall.DirectoryOptions{CacheDir: d.w.cacheDir(i), Logger: silent})
	if err != nil {
		return err
	}
	d.directories = append(d.directories, dir)
	r, err := rollcall.NewRegistrar(dir, rollcall.RegistrarOptions{NoOrigin: true, TTL: registrationTTL})
	if err != nil {
		return err
	}
	d.registrars = append(d.registrars, r)
	for s := range services {
		service := serviceName(s)
		w, err := newWatcher(client, fmt.Sprintf("watch channel %d of %s", i, service), service)
		if err != nil {
			return err
		}
		d.consumers = append(d.consumers, w)
	}
	return d.subscribe(i)
}

// subscribe opens what a client resolves with: a subscription and a channel a service.
func (d *driver) subscribe(i int) error {
	for s := range services {
		service := serviceName(s)
		f, err := newFollower(d.directories[i], fmt.Sprintf("subscription %d to %s", i, service), service)
		if err != nil {
			return err
		}
		d.consumers = append(d.consumers, f)
		c, err := newChannel(d.directories[i], fmt.Sprintf("channel %d to %s", i, service), service)
		if err != nil {
			return err
		}
		d.consumers = append(d.consumers, c)
	}
	return nil
}

// resubscribe closes what a client resolves with and opens it again.
func (d *driver) resubscribe(i int) error {
	d.consumers = slices.DeleteFunc(d.consumers, func(c consumer) bool {
		its := strings.HasPrefix(c.name(), fmt.Sprintf("subscription %d ", i)) || strings.HasPrefix(c.name(), fmt.Sprintf("channel %d ", i))
		if its {
			c.close()
		}
		return its
	})
	return d.subscribe(i)
}

func serviceName(i int) string { return fmt.Sprint("s", i) }

func (d *driver) close() {
	for _, c := range d.consumers {
		c.close()
	}
	for _, r := range d.registrars {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		_ = r.Shutdown(ctx) // a world in faults may not answer
		cancel()
	}
	for _, dir := range d.directories {
		dir.Close()
	}
	d.lister.Close()
	d.truth.end()
}

// play does what a history says, then heals the world and checks.
func (d *driver) play(steps []step) error {
	for _, s := range steps {
		if err := d.do(s); err != nil {
			return fmt.Errorf("%s: %w", s, err)
		}
	}
	return d.check()
}

func (d *driver) do(s step) error {
	words := strings.Fields(string(s))
	op, args := words[0], words[1:]
	number := func(i int) int {
		if i >= len(args) {
			return 0
		}
		n, _ := strconv.Atoi(args[i])
		return n
	}
	switch op {
	case "wait":
		wait, err := time.ParseDuration(args[0])
		time.Sleep(wait)
		return err
	case "put", "drain", "spoil", "same", "unix", "twin", "leased", "del":
		d.write(op, args[0])
	case "many":
		for i := range 40 {
			d.write("put", fmt.Sprintf("s0/many-%02d", i))
		}
	case "register", "update", "leave", "undrain", "touch":
		d.registration(op, number(0), number(1))
	case "flap": // as a health check has it
		d.registration("leave", number(0), number(1))
		d.registration("register", number(0), number(1))
	case "brief":
		d.registration("register", number(0), number(1))
		time.Sleep(300 * time.Millisecond)
		d.registration("leave", number(0), number(1))
	case "edit-drain", "edit-undrain", "edit-weight", "edit-plain":
		d.edit(op, number(0), number(1))
	case "resubscribe":
		return d.resubscribe(number(0))
	case "check":
		return d.check()
	case "compact":
		if d.truth.catchUp(d.w.direct()) { // what is compacted cannot be recorded any more
			d.w.fault(op, 0, d.losing)
		}
	default:
		d.halfOpen = d.halfOpen || op == "freeze" || op == "pause"
		d.w.fault(op, number(0), d.losing)
	}
	return nil
}

// checkedWithin bounds the time until every service has been compared with the store.
const checkedWithin = 8 * time.Minute

// unsure reports whether clients may have followed a lost epoch since the last check: once the new
// epoch has reached the revision floor, only a consistency check tells the two apart.
func (d *driver) unsure() bool { return d.lost > 0 && d.checked.Before(d.lostAt.Add(checkedWithin)) }

// losing makes the store lose its data: another epoch begins.
func (d *driver) losing(lose func()) {
	d.truth.catchUp(d.w.direct())
	d.truth.end()
	lose()
	d.lost++
	d.lostAt = time.Now()
	_ = d.truth.begin(d.w.direct()) // an error shows in the next check
}

// write writes a key without Rollcall. It may fail, or its answer be lost: the check compares with
// the content of etcd.
func (d *driver) write(op, key string) {
	d.writes++
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	value := fmt.Sprintf(`{"Op":0,"Addr":"host-%d:80","Metadata":{"version":"%d"}}`, d.writes, d.writes)
	var opts []clientv3.OpOption
	switch op {
	case "del":
		_, _ = d.w.direct().Delete(ctx, key)
		return
	case "same":
		resp, err := d.w.direct().Get(ctx, key)
		if err != nil || len(resp.Kvs) == 0 {
			return
		}
		value = string(resp.Kvs[0].Value)
	case "drain":
		value = fmt.Sprintf(`{"Addr":"host-%d:80","Metadata":{"status":"draining"}}`, d.writes)
	case "spoil":
		value = "not JSON"
	case "unix":
		value = `{"Addr":"unix:/x"}`
	case "twin":
		value = `{"Addr":"twin:80"}`
	case "leased":
		lease, err := d.w.direct().Grant(ctx, 5)
		if err != nil {
			return
		}
		opts = append(opts, clientv3.WithLease(lease.ID))
	}
	_, _ = d.w.direct().Put(ctx, key, value, opts...)
}

// registration changes one registration of a client.
func (d *driver) registration(op string, client, instance int) {
	service, id := serviceName(instance%services), fmt.Sprintf("r%d-%d", client, instance)
	key := rollcall.Key(service, id)
	g := d.regs[key]
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	switch {
	case op == "touch":
		d.write("del", key)
	case op == "register" && g == nil:
		g, err := d.registrars[client].Register(service, rollcall.Endpoint{ID: id, Addr: id + ":80"})
		if err == nil {
			d.regs[key] = g
			delete(d.left, key)
			delete(d.versions, key)
		}
	case g == nil:
	case op == "update", op == "undrain":
		d.writes++
		d.versions[key] = fmt.Sprint(d.writes)
		_ = g.Update(ctx, map[string]any{"version": d.versions[key]}) // a time-out leaves it to be written later
	case op == "leave":
		_ = g.Shutdown(ctx)
		delete(d.regs, key)
		d.left[key] = true
	}
}

// edit changes a registration's value in etcd, as an operator does.
func (d *driver) edit(op string, client, instance int) {
	key := rollcall.Key(serviceName(instance%services), fmt.Sprintf("r%d-%d", client, instance))
	if d.regs[key] == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	resp, err := d.w.direct().Get(ctx, key)
	if err != nil || len(resp.Kvs) == 0 {
		return
	}
	inst, err := rollcall.Decode(resp.Kvs[0])
	if err != nil {
		return
	}
	d.writes++
	d.edited[key] = true // if etcd took it
	field, value, opts := "status", any(rollcall.StatusDraining), []clientv3.OpOption{clientv3.WithIgnoreLease()}
	switch op {
	case "edit-undrain":
		value = nil
	case "edit-weight":
		field, value = "weight", 1+d.writes
	case "edit-plain":
		opts = nil
	}
	metadata, err := rollcall.WithField(inst.Metadata, field, value)
	if err != nil {
		return
	}
	data, err := rollcall.Encode(inst.Addr, metadata)
	if err != nil {
		return
	}
	_, _ = d.w.direct().Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", resp.Kvs[0].ModRevision)).
		Then(clientv3.OpPut(key, string(data), opts...)).Commit()
}

// checkStatuses returns an error where a status is another than at the last check, and
// nobody but the program has written since.
func (d *driver) checkStatuses() error {
	for s := range services {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		snap, err := d.lister.List(ctx, serviceName(s))
		cancel()
		if err != nil {
			return err
		}
		for key := range d.regs {
			inst := snap.Instance(key)
			if inst == nil {
				continue
			}
			status, before := inst.Attributes().Status(), d.statuses[key]
			if before != "" && status != before && !d.edited[key] && !d.unsure() {
				return fmt.Errorf("registration %s is %s, and was %s when an operator last had a hand in it", key, status, before)
			}
			d.statuses[key] = status
			delete(d.edited, key)
		}
	}
	return nil
}

// check heals the world and waits until everything shows the content of etcd.
func (d *driver) check() error {
	d.w.heal()
	d.checks++
	s := d.w.patience()
	if d.unsure() {
		s.bound = checkedWithin
	}
	began := time.Now()
	var agreed int64 // revision at which all showed the same
	for {
		revision, err := d.compare()
		if agreed = revision; err == nil {
			break
		}
		if time.Since(began) > s.bound {
			return fmt.Errorf("%v after the last fault: %w", s.bound, err)
		}
		time.Sleep(s.poll)
	}
	d.slowest = max(d.slowest, time.Since(began))
	if err := d.checkStatuses(); err != nil {
		return err
	}
	for _, c := range d.consumers {
		c.look()
	}
	d.truth.catchUp(d.w.direct()) // recorded by another watch
	for _, c := range d.consumers {
		if err := c.wrong(&d.truth, d.unsure()); err != nil {
			return fmt.Errorf("%s: %w", c.name(), err)
		}
	}
	d.checked = time.Now()
	d.truth.forget(agreed)
	for i, dir := range d.directories {
		if stats := dir.Stats(); d.lost == 0 && (stats.Epochs > 0 || stats.Inconsistencies > 0 && !d.halfOpen) {
			return fmt.Errorf("directory %d: a false alarm, or an event missed: %+v", i, stats)
		}
	}
	return nil
}

// compare returns what does not show the content of etcd, nil if everything does, and from which
// revision on it looked.
func (d *driver) compare() (from int64, err error) {
	for s := range services {
		service := serviceName(s)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		want, err := d.lister.List(ctx, service)
		cancel()
		if err != nil {
			return 0, err
		}
		if from == 0 {
			from = want.Revision()
		}
		for _, c := range d.consumers {
			if !strings.HasSuffix(c.name(), service) {
				continue
			}
			if err := c.differs(want); err != nil {
				return 0, fmt.Errorf("%s: %w", c.name(), err)
			}
		}
		if err := d.compareRegistrations(service, want); err != nil {
			return 0, err
		}
	}
	return from, nil
}

// leaveAll closes every registration.
func (d *driver) leaveAll() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for key, g := range d.regs {
		if err := g.Shutdown(ctx); err != nil {
			return err
		}
		delete(d.regs, key)
		d.left[key] = true
	}
	return d.check()
}

func (d *driver) compareRegistrations(service string, want *rollcall.Snapshot) error {
	for key, g := range d.regs {
		if g.Service() != service {
			continue
		}
		state, _ := g.State()
		inst := want.Instance(key)
		switch {
		case state.Phase != rollcall.Registered && state.Phase != rollcall.Draining:
			return fmt.Errorf("registration %s is %s: %w", key, state.Phase, state.Err)
		case inst == nil:
			return fmt.Errorf("registration %s is %s, but not in etcd", key, state.Phase)
		case inst.Lease != state.Lease || inst.Addr != g.Addr():
			return fmt.Errorf("registration %s stands under lease %x with %s", key, int64(inst.Lease), inst.Addr)
		case (state.Phase == rollcall.Draining) != inst.Draining():
			return fmt.Errorf("registration %s says %s, and is %s in etcd", key, state.Phase, inst.Attributes().Status())
		case inst.Attributes().Version != d.versions[key]:
			return fmt.Errorf("registration %s has version %q, want %q", key, inst.Attributes().Version, d.versions[key])
		}
	}
	for key := range d.left {
		inst := want.Instance(key)
		if inst != nil && inst.Lease == 0 && d.edited[key] {
			continue // put by an operator, and never seen by the registrar: it is not its to delete
		}
		if inst != nil {
			return errors.New("registration " + key + " was closed and is still in etcd")
		}
	}
	return nil
}
