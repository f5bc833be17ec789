// SPDX-FileCopyrightText: The Rollcall Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// xdsClient is one ADS stream on a connection of its own, which costs as little as possible, so
// that what is measured is the server: it looks at versions and nonces, and at no resources.
type xdsClient struct {
	fleet   *fleet
	service string
	node    *corev3.Node // sent with the first request
	conn    net.Conn
	framer  *http2.Framer
	out     *bufio.Writer
	message []byte // what has arrived of the next message
	found   string // the last fleet.marker that it was sent
}

// fleet is many clients, and what they have been sent.
type fleet struct {
	server  string
	bytes   atomic.Int64 // of assignments
	pushes  atomic.Int64 // assignments
	largest atomic.Int64
	over    atomic.Bool // the server may end

	mu     sync.Mutex
	marker string // in the assignment that is awaited
	left   int    // clients that have not been sent it
	last   time.Time
	done   chan struct{}
}

// await returns what waits until so many clients have been sent an assignment with an address,
// and returns when the last was.
func (f *fleet) await(clients int, address string) (wait func() time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	host, _, _ := net.SplitHostPort(address)
	f.marker = string([]byte{2<<3 | byte(protowire.BytesType), byte(len(host))}) + host // of envoy.config.core.v3.SocketAddress
	f.left, f.done = clients, make(chan struct{})
	done := f.done
	return func() time.Time {
		<-done
		f.mu.Lock()
		defer f.mu.Unlock()
		f.marker = ""
		return f.last
	}
}

// got takes in an assignment that a client was sent.
func (f *fleet) got(c *xdsClient, message []byte) {
	f.bytes.Add(int64(len(message)))
	f.pushes.Add(1)
	if n := int64(len(message)); n > f.largest.Load() {
		f.largest.Store(n)
	}
	f.mu.Lock()
	marker := f.marker
	f.mu.Unlock()
	if marker == "" || marker == c.found || !bytes.Contains(message, []byte(marker)) {
		return
	}
	c.found = marker
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left--; f.left == 0 {
		f.last = now
		close(f.done)
	}
}

// dial connects a client, without asking for anything.
func (f *fleet) dial(id, service string) *xdsClient {
	conn := must(net.Dial("tcp", f.server))
	c := &xdsClient{fleet: f, service: service, node: &corev3.Node{Id: id, Cluster: service}, conn: conn, out: bufio.NewWriterSize(conn, 512)}
	c.framer = http2.NewFramer(c.out, bufio.NewReaderSize(conn, 4<<10))
	c.framer.SetReuseFrames()
	must(c.out.WriteString(http2.ClientPreface))
	check(c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: math.MaxInt32}))
	check(c.framer.WriteWindowUpdate(0, math.MaxInt32-65535))
	check(c.out.Flush())
	for {
		frame := must(c.framer.ReadFrame())
		if s, ok := frame.(*http2.SettingsFrame); ok && !s.IsAck() {
			check(c.framer.WriteSettingsAck())
			check(c.out.Flush())
			return c
		}
	}
}

// open opens the stream and asks for resources of a type.
func (c *xdsClient) open(typeURL string) {
	var headers bytes.Buffer
	enc := hpack.NewEncoder(&headers)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", discoveryv3.AggregatedDiscoveryService_StreamAggregatedResources_FullMethodName},
		{":authority", "bench"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		check(enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
	}
	check(c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers.Bytes(), EndHeaders: true}))
	c.ask(typeURL, "", "")
}

func (c *xdsClient) ask(typeURL, version, nonce string) {
	req := &discoveryv3.DiscoveryRequest{Node: c.node, TypeUrl: typeURL, ResourceNames: []string{c.service}, VersionInfo: version, ResponseNonce: nonce}
	c.node = nil
	message := must(proto.MarshalOptions{}.MarshalAppend(make([]byte, 5, 256), req))
	binary.BigEndian.PutUint32(message[1:], uint32(len(message)-5))
	check(c.framer.WriteData(1, false, message))
	check(c.out.Flush())
}

// receive returns the next response: its type, version and nonce.
func (c *xdsClient) receive() (typeURL, version, nonce string, err error) {
	c.message = c.message[:0]
	for len(c.message) < 5 || len(c.message) < 5+int(binary.BigEndian.Uint32(c.message[1:])) {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return "", "", "", err
		}
		switch frame := frame.(type) {
		case *http2.DataFrame:
			c.message = append(c.message, frame.Data()...)
		case *http2.PingFrame:
			if !frame.IsAck() {
				check(c.framer.WritePing(true, frame.Data))
				check(c.out.Flush())
			}
		case *http2.MetaHeadersFrame, *http2.SettingsFrame, *http2.WindowUpdateFrame:
		case *http2.HeadersFrame:
			if frame.StreamEnded() {
				return "", "", "", errors.New("the server has ended the stream")
			}
		default:
			return "", "", "", fmt.Errorf("frame %v", frame)
		}
	}
	for b := c.message[5:]; len(b) > 0; {
		number, kind, n := protowire.ConsumeTag(b)
		length := protowire.ConsumeFieldValue(number, kind, b[max(n, 0):])
		if n < 0 || length < 0 {
			return "", "", "", errors.New("an invalid response")
		}
		if value, _ := protowire.ConsumeBytes(b[n:]); number != 2 && kind == protowire.BytesType {
			switch number {
			case 1:
				version = string(value)
			case 4:
				typeURL = string(value)
			case 5:
				nonce = string(value)
			}
		}
		b = b[n+length:]
	}
	if typeURL == resource.EndpointType {
		c.fleet.got(c, c.message)
	}
	return typeURL, version, nonce, nil
}

// run asks for the resources of a service as gRPC does, one after the other, and accepts all
// that it is sent. It calls ready once it has the endpoints.
func (c *xdsClient) run(ready func()) {
	c.open(resource.ListenerType)
	next := map[string]string{resource.ListenerType: resource.ClusterType, resource.ClusterType: resource.EndpointType}
	for {
		typeURL, version, nonce, err := c.receive()
		if c.fleet.over.Load() {
			return
		}
		check(err)
		c.ask(typeURL, version, nonce)
		if following := next[typeURL]; following != "" {
			c.ask(following, "", "")
			delete(next, typeURL)
		} else if ready != nil && typeURL == resource.EndpointType {
			ready()
			ready = nil
		}
	}
}

// connect starts clients, the i-th of a service, and waits until each has its endpoints.
func (f *fleet) connect(from, n int, service func(i int) string) {
	var all sync.WaitGroup
	slots := make(chan struct{}, 32)
	for i := from; i < from+n; i++ {
		all.Add(1)
		slots <- struct{}{}
		go f.dial(fmt.Sprintf("client-%d", i), service(i)).run(func() {
			all.Done()
			<-slots
		})
	}
	all.Wait()
}
