package tables

import (
	"maps"
	"slices"
	"strings"
)

// parts are the parts of the service that the emulator does not have, with
// their operations.
var parts = map[string]string{
	"search indexes": "CreateSearchIndex DescribeSearchIndex UpdateSearchIndex DeleteSearchIndex " +
		"Search ParallelScan ComputeSplits",
	"SQL": "SQLQuery",
	"time series": "CreateTimeseriesTable DescribeTimeseriesTable UpdateTimeseriesTable DeleteTimeseriesTable " +
		"PutTimeseriesData GetTimeseriesData SplitTimeseriesScanTask ScanTimeseriesData " +
		"QueryTimeseriesMeta UpdateTimeseriesMeta DeleteTimeseriesMeta " +
		"CreateTimeseriesAnalyticalStore DescribeTimeseriesAnalyticalStore UpdateTimeseriesAnalyticalStore DeleteTimeseriesAnalyticalStore " +
		"CreateTimeseriesLastpointIndex DeleteTimeseriesLastpointIndex",
	"delivery tasks": "CreateDeliveryTask DescribeDeliveryTask ListDeliveryTask UpdateDeliveryTask DeleteDeliveryTask",
	"knowledge bases": "CreateKnowledgeBase DescribeKnowledgeBase ListKnowledgeBase UpdateKnowledgeBase DeleteKnowledgeBase " +
		"AddDocuments GetDocument ListDocuments UpdateDocument DeleteDocuments Retrieve ListChunks UpdateChunks",
	"memory stores": "CreateMemoryStore GetMemoryStore ListMemoryStores UpdateMemoryStore DeleteMemoryStore " +
		"AddMemories GetMemory SearchMemories ListMemories UpdateMemory DeleteMemory ListMemoryStoreMessages ListMemoryStoreRequests",
	"bulk import and export": "BulkImport BulkExport",
	"unloading of tables":    "LoadTable UnloadTable",
}

// missing maps an operation to the missing part of the service that it belongs
// to.
var missing = func() map[string]string {
	m := make(map[string]string)
	for part, names := range parts {
		for _, name := range strings.Fields(names) {
			m[name] = part
		}
	}
	return m
}()

// Operations returns the names of all supported operations, sorted.
func Operations() []string { return slices.Sorted(maps.Keys(operations)) }

// Missing returns the names of the operations that are answered with
// OTSUnsupportOperation, sorted.
func Missing() []string { return slices.Sorted(maps.Keys(missing)) }

// Names returns the names of all operations of the service, sorted.
func Names() []string {
	names := append(Operations(), Missing()...)
	slices.Sort(names)
	return names
}
