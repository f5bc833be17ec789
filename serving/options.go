// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/health"

	"github.com/rollcall-grpc/rollcall"
)

// GRPCServer is what a *grpc.Server and an *xds.GRPCServer have in common.
type GRPCServer interface {
	Serve(net.Listener) error
	GracefulStop()
	Stop()
}

// Options tell who serves what. A Client or a Registrar is required, and one service.
type Options struct {
	// Client is an etcd client. The server makes a Registrar with default settings of the
	// client's shared Directory, and closes it in the end. For other settings give a Registrar
	// instead, which stays open.
	Client    *clientv3.Client
	Registrar *rollcall.Registrar

	Service  string   // the service's name, "my-service"
	Services []string // instead, where the server is to be listed under several names

	// Endpoint is what is advertised, under each name. Its Addr defaults to the listener's
	// address, which must then be one that clients can reach, so not "0.0.0.0" or ":50051".
	Endpoint rollcall.Endpoint

	// Health, if set, decides: the server is listed while this service, of the name
	// HealthService (default "", the server as a whole), says SERVING.
	Health        *health.Server
	HealthService string

	DrainDelay  time.Duration // from "draining" until deregistration, for clients to notice; more than 0, default 1 s
	StopTimeout time.Duration // how long running calls may take to finish; more than 0, default 30 s
	Logger      *slog.Logger  // default: the Registrar's, which is its Directory's by default
}

// validate fills in the defaults and returns the options' error, for all but the address.
func (o *Options) validate() error {
	if (o.Client == nil) == (o.Registrar == nil) {
		return errors.New("serving: set Options.Client or Options.Registrar, one of the two")
	}
	if o.HealthService != "" && o.Health == nil {
		return inputError("health service", o.HealthService, "it needs Options.Health")
	}
	if o.Service != "" {
		if len(o.Services) > 0 {
			return inputError("service", o.Service, "set Options.Service or Options.Services, one of the two")
		}
		o.Services = []string{o.Service}
	}
	if len(o.Services) == 0 {
		return inputError("service", "", "set Options.Service to the name that clients use")
	}
	seen := make(map[string]bool)
	for _, name := range o.Services {
		service, err := rollcall.ParseService(name)
		if err != nil {
			return err
		}
		if seen[service] {
			return inputError("service", service, "it is given twice")
		}
		seen[service] = true
	}
	for _, d := range []struct {
		field string
		value *time.Duration
		usual time.Duration
	}{{"DrainDelay", &o.DrainDelay, time.Second}, {"StopTimeout", &o.StopTimeout, 30 * time.Second}} {
		switch {
		case *d.value < 0:
			return inputError(d.field, d.value.String(), "it must be more than 0, or 0 for the default of "+d.usual.String())
		case *d.value == 0:
			*d.value = d.usual
		}
	}
	return nil
}

// canDrain reports whether the metadata can carry the drain mark.
func (o *Options) canDrain() bool {
	metadata, err := json.Marshal(o.Endpoint.Metadata)
	if err == nil {
		_, err = rollcall.WithField(metadata, "status", rollcall.StatusDraining)
	}
	return err == nil
}

// advertise takes the address from the listener where none is set, and the host from the address
// as it was written where that is a name.
func (o *Options) advertise(lis net.Listener, written string) error {
	if o.Endpoint.Addr != "" {
		return nil
	}
	addr := lis.Addr().String()
	if host, _, err := net.SplitHostPort(written); err == nil && host != "" {
		if _, err := netip.ParseAddr(host); err != nil {
			_, port, _ := net.SplitHostPort(addr)
			o.Endpoint.Addr = net.JoinHostPort(host, port)
			return nil
		}
	}
	if ap, err := netip.ParseAddrPort(addr); err != nil || ap.Addr().IsUnspecified() {
		return inputError("address", addr, "clients cannot be told the listener's address; set Options.Endpoint.Addr to host:port")
	}
	o.Endpoint.Addr = addr
	return nil
}

func inputError(field, value, reason string) error {
	return &rollcall.InputError{Field: field, Value: value, Reason: reason}
}

// registrar returns the Registrar to use, and what closes it.
func (o *Options) registrar() (_ *rollcall.Registrar, release func(), err error) {
	if o.Registrar != nil {
		return o.Registrar, func() {}, nil
	}
	directory, err := rollcall.SharedDirectory(o.Client)
	if err != nil {
		return nil, nil, err
	}
	r, err := rollcall.NewRegistrar(directory, rollcall.RegistrarOptions{Logger: o.Logger})
	if err != nil {
		return nil, nil, err
	}
	return r, r.Close, nil
}
