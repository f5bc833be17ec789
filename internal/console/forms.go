// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rollcall-grpc/rollcall"
	"github.com/rollcall-grpc/rollcall/internal/edit"
	"github.com/rollcall-grpc/rollcall/internal/printable"
)

// writeTime bounds a change of etcd.
const writeTime = 10 * time.Second

// maxShares bounds the endpoints in the preview of a change.
const maxShares = 50

// asked is a change that somebody asks for.
type asked struct {
	Service string
	ID      string
	Action  string // drain, undrain or weight; of a service config: set or delete
	Value   string // the weight, or the service config
	Problem string // why it was not done
	Last    bool   // a drain would leave no endpoint serving, which is to be confirmed again

	Shares  []edit.CallShare // of the calls, before and after the change; the first maxShares
	More    int              // endpoints beyond
	Moved   float64          // the part of all calls that the change would move
	Assumed bool             // that weights count: the service config does not tell

	Modified int64 // the revision of the service config that the form was made from
	Self     string
}

func (c *Console) changeForm() form { return form{c.askChange, c.change} }
func (c *Console) configForm() form { return form{c.askConfig, c.changeConfig} }

// changeOf reads which endpoint is to be changed, and how. What is in the address of the page is
// not in the form again: keys may hold bytes that a form cannot.
func changeOf(r *http.Request) (asked, error) {
	query := r.URL.Query()
	a := asked{Service: query.Get("service"), ID: query.Get("id"), Action: query.Get("do"), Value: query.Get("weight"), Self: r.URL.RequestURI()}
	if value := r.PostFormValue("weight"); value != "" {
		a.Value = value
	}
	service, err := rollcall.ParseService(a.Service)
	switch {
	case err != nil:
		return a, err
	case a.ID == "":
		return a, errors.New("the id of the endpoint is missing")
	case a.Action != "drain" && a.Action != "undrain" && a.Action != "weight":
		return a, errors.New("do: want drain, undrain or weight")
	}
	a.Service = service
	return a, rollcall.CheckKey(rollcall.Key(a.Service, a.ID))
}

// field returns the field of the metadata that is to be set, and its value.
func (a asked) field() (name string, value any, err error) {
	switch a.Action {
	case "drain":
		return "status", rollcall.StatusDraining, nil
	case "undrain":
		return "status", nil, nil
	}
	weight, err := strconv.ParseUint(strings.TrimSpace(a.Value), 10, 32)
	if err != nil || weight == 0 {
		return "", nil, errors.New("weight " + strconv.Quote(a.Value) + ": want a whole number from 1 to 4294967295; to stop calls to an endpoint, drain it")
	}
	return "weight", weight, nil
}

func (c *Console) askChange(w http.ResponseWriter, r *http.Request, v *visitor) {
	a, err := changeOf(r)
	if err != nil {
		c.fail(w, r, http.StatusBadRequest, "Not understood", err.Error())
		return
	}
	a.preview(r.Context(), v.world.directory)
	c.ask(w, r, http.StatusOK, a, "change")
}

// preview fills in what the change would do to the calls, unless a weight is yet to be given. Without an
// answer of etcd there is nothing to show; the change itself tells why.
func (a *asked) preview(ctx context.Context, directory *rollcall.Directory) {
	name, value, err := a.field()
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	snap, err := directory.List(ctx, a.Service)
	if err != nil {
		return
	}
	keys, err := edit.WithID(a.ID)(snap)
	if err != nil {
		return
	}
	config, _ := directory.ServiceConfig(ctx, a.Service)
	by := edit.PolicyOf(config).Weighting
	if p, err := edit.PreviewField(a.Service, slices.Collect(snap.All()), keys, name, value, by); err == nil && len(p.Same) == 0 {
		a.Moved, a.Assumed = p.Moved, by == edit.UnknownWeighting
		a.More = max(len(p.Rows)-maxShares, 0)
		a.Shares = p.Rows[:len(p.Rows)-a.More]
	}
}

// ask answers with a form that asks whether something is to be done.
func (c *Console) ask(w http.ResponseWriter, r *http.Request, status int, a asked, template string) {
	c.write(w, r, status, pageData{Title: a.title(), CSRF: c.sessions.csrf(visitorCookie(w, r)), Content: a}, template)
}

func (a asked) title() string {
	switch a.Action {
	case "drain":
		return "Drain " + a.ID + "?"
	case "undrain":
		return "Let " + a.ID + " take calls again?"
	case "weight":
		return "Weight of " + a.ID
	}
	return "Service config of " + a.Service
}

// change does what changeForm has asked about.
func (c *Console) change(w http.ResponseWriter, r *http.Request, v *visitor) {
	a, err := changeOf(r)
	if err != nil {
		c.fail(w, r, http.StatusBadRequest, "Not understood", err.Error())
		return
	}
	name, value, err := a.field()
	if err != nil {
		a.Problem = err.Error()
		c.ask(w, r, http.StatusBadRequest, a, "change")
		return
	}
	if r.PostFormValue("preview") != "" {
		a.preview(r.Context(), v.world.directory)
		c.ask(w, r, http.StatusOK, a, "change")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), writeTime)
	defer cancel()
	check := edit.Check(edit.KeepServing)
	if a.Action != "drain" || r.PostFormValue("last") != "" {
		check = nil
	}
	done, err := edit.Apply(ctx, v.world.directory, a.Service, edit.WithID(a.ID), check, edit.SetField(name, value))
	c.record(r, v, a.Action, done.Revision, err, "service", a.Service, "id", a.ID, "value", a.Value)
	if err != nil {
		var last *edit.LastServingError
		a.Last = errors.As(err, &last)
		a.Problem = c.problem(err, rollcall.Key(a.Service, a.ID))
		c.ask(w, r, statusOf(err), a, "change")
		return
	}
	http.Redirect(w, r, string(link("/service", "name", a.Service)), http.StatusSeeOther)
}

// record logs who has changed what, or has tried to.
func (c *Console) record(r *http.Request, v *visitor, what string, revision int64, err error, about ...any) {
	about = append([]any{"who", v.name, "peer", r.RemoteAddr, "change", what}, about...)
	if err != nil {
		c.log.Warn("a change by the console was not made", append(about, "cause", printable.Error(err))...)
		return
	}
	c.log.Info("changed by the console", append(about, "revision", revision)...)
}

// problem says why a key was not changed.
func (c *Console) problem(err error, key string) string {
	if denied(err) {
		return "etcd refuses: " + printable.Error(err) + "; the role must be allowed to read and write " + quoted(key)
	}
	return printable.Error(err)
}

func statusOf(err error) int {
	var missing *edit.NotFoundError
	var last *edit.LastServingError
	var input *rollcall.InputError
	switch {
	case denied(err):
		return http.StatusForbidden
	case errors.As(err, &last):
		return http.StatusConflict
	case errors.As(err, &missing):
		return http.StatusNotFound
	case errors.As(err, &input):
		return http.StatusBadRequest
	case errors.Is(err, rollcall.ErrConfigChanged):
		return http.StatusConflict
	}
	return http.StatusBadGateway
}

// askConfig answers with a form that has the service config as it is.
func (c *Console) askConfig(w http.ResponseWriter, r *http.Request, v *visitor) {
	a := asked{Service: r.URL.Query().Get("service"), Action: "set", Self: r.URL.RequestURI()}
	ctx, cancel := context.WithTimeout(r.Context(), writeTime)
	defer cancel()
	config, err := v.world.directory.ServiceConfig(ctx, a.Service)
	if err != nil {
		c.fail(w, r, statusOf(err), "Not possible", c.problem(err, rollcall.ConfigPrefix+a.Service))
		return
	}
	a.Modified = config.ModRevision
	if config.JSON != nil {
		a.Value = indented(config.JSON)
	}
	c.ask(w, r, http.StatusOK, a, "config")
}

// changeConfig writes or deletes a service config, unless it has changed since the form was made.
func (c *Console) changeConfig(w http.ResponseWriter, r *http.Request, v *visitor) {
	a := asked{Service: r.URL.Query().Get("service"), Action: r.PostFormValue("do"), Self: r.URL.RequestURI(),
		Value: strings.TrimSpace(strings.ReplaceAll(r.PostFormValue("config"), "\r\n", "\n"))}
	a.Modified, _ = strconv.ParseInt(r.PostFormValue("modified"), 10, 64) // 0: it is written only if there is none
	ctx, cancel := context.WithTimeout(r.Context(), writeTime)
	defer cancel()
	config := rollcall.ServiceConfig{Service: a.Service, JSON: json.RawMessage(a.Value), ModRevision: a.Modified}
	var revision int64
	var err error
	switch {
	case r.PostFormValue("sure") != "yes":
		err = errors.New("nothing was written: tick the box that says that you are sure")
		a.Problem = err.Error()
		c.ask(w, r, http.StatusBadRequest, a, "config")
		return
	case a.Action == "delete":
		err = v.world.directory.DeleteServiceConfig(ctx, config)
	default:
		a.Action = "set"
		if err = c.opts.CheckConfig(a.Value); err != nil {
			break
		}
		var written *rollcall.ServiceConfig
		if written, err = v.world.directory.PutServiceConfig(ctx, config); err == nil {
			revision = written.ModRevision
		}
	}
	c.record(r, v, a.Action+" service config", revision, err, "service", a.Service)
	if err != nil {
		a.Problem = c.problem(err, rollcall.ConfigPrefix+a.Service)
		c.ask(w, r, statusOf(err), a, "config")
		return
	}
	http.Redirect(w, r, string(link("/service", "name", a.Service)), http.StatusSeeOther)
}
