// Package subscriber is a Watermill Subscriber over the tunnels of Aliyun
// Tablestore (OTS).
package subscriber
