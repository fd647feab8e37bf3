// Runs the official Node.js SDK, unmodified, against the emulator whose address
// and credentials are in the environment. Each step prints one line of TAP.
'use strict';

const assert = require('node:assert');
const TableStore = require('tablestore');

const { Long } = TableStore;
const env = process.env;

function connect(secret) {
  return new TableStore.Client({
    endpoint: env.OTS_ENDPOINT,
    instancename: env.OTS_INSTANCE,
    accessKeyId: env.OTS_ACCESS_KEY_ID,
    secretAccessKey: secret,
    maxRetries: 0,
  });
}

const client = connect(env.OTS_ACCESS_KEY_SECRET);
const ignore = new TableStore.Condition(TableStore.RowExistenceExpectation.IGNORE, null);
const tableName = 'orders';

// key makes a primary key; an id that is no number is passed on as it is.
function key(pk, id) {
  return [{ pk }, { id: typeof id === 'number' ? Long.fromNumber(id) : id }];
}

// columns returns a row's columns as name=value, "-" when it is not there.
function columns(row) {
  if (!row || !row.primaryKey) return '-';
  return (row.attributes || []).map((c) => `${c.columnName}=${c.columnValue}`).join(' ');
}

async function get(pk, id, more) {
  const r = await client.getRow({ tableName, primaryKey: key(pk, id), maxVersions: 1, ...more });
  return columns(r.row);
}

function put(pk, id, attributeColumns, more) {
  return client.putRow({ tableName, condition: ignore, primaryKey: key(pk, id), attributeColumns, ...more });
}

function update(pk, id, updateOfAttributeColumns, more) {
  return client.updateRow({ tableName, condition: ignore, primaryKey: key(pk, id), updateOfAttributeColumns, ...more });
}

// fails returns the error that a call ends with.
async function fails(promise) {
  try {
    await promise;
  } catch (err) {
    return err;
  }
  return assert.fail('there was no error');
}

const steps = {
  async 'creates, describes, updates and lists a table'() {
    await client.createTable({
      tableMeta: { tableName, primaryKey: [{ name: 'pk', type: 'STRING' }, { name: 'id', type: 'INTEGER' }] },
      reservedThroughput: { capacityUnit: { read: 0, write: 0 } },
      tableOptions: { timeToLive: -1, maxVersions: 2 },
      streamSpecification: { enableStream: true, expirationTime: 24 },
    });
    const described = await client.describeTable({ tableName });
    assert.strictEqual(described.tableMeta.tableName, tableName);
    assert.strictEqual(described.tableOptions.maxVersions, 2);
    assert.strictEqual(described.streamDetails.enableStream, true);
    await client.updateTable({ tableName, tableOptions: { maxVersions: 3 } });
    assert.strictEqual((await client.describeTable({ tableName })).tableOptions.maxVersions, 3);
    assert.deepStrictEqual((await client.listTable({})).tableNames, ['ledger', tableName]);
  },
  async 'puts and gets every type of column'() {
    await put('a', 1, [{ text: '表格存储' }, { number: Long.fromNumber(-7) }, { double: 1.5 }, { yes: true }, { bytes: Buffer.from([0, 255]) }]);
    const r = await client.getRow({ tableName, primaryKey: key('a', 1), maxVersions: 1 });
    assert.strictEqual(columns(r.row).replace(/bytes=\S* /s, ''), 'double=1.5 number=-7 text=表格存储 yes=true');
    const bytes = r.row.attributes.find((c) => c.columnName === 'bytes').columnValue;
    assert.deepStrictEqual([...bytes], [0, 255]);
    assert.strictEqual(await get('a', 2), '-');
  },
  async 'returns the primary key on request'() {
    const r = await put('a', 3, [{ v: 'x' }], { returnContent: { returnType: TableStore.ReturnType.Primarykey } });
    assert.strictEqual(r.row.primaryKey[0].value, 'a');
    assert.strictEqual(r.row.primaryKey[1].value.toNumber(), 3);
  },
  async 'updates, increments and deletes'() {
    await put('b', 1, [{ a: '1' }, { b: '1' }, { n: Long.fromNumber(40) }]);
    await update('b', 1, [{ PUT: [{ c: 'new' }] }, { DELETE_ALL: ['a'] }]);
    assert.strictEqual(await get('b', 1), 'b=1 c=new n=40');
    const r = await update('b', 1, [{ INCREMENT: [{ n: Long.fromNumber(2) }] }], {
      returnContent: { returnColumns: ['n'], returnType: TableStore.ReturnType.AfterModify },
    });
    assert.strictEqual(r.row.attributes[0].columnValue.toNumber(), 42);
    await client.deleteRow({ tableName, condition: ignore, primaryKey: key('b', 1) });
    assert.strictEqual(await get('b', 1), '-');
  },
  async 'checks conditions'() {
    await put('c', 1, [{ name: 'john' }, { addr: 'china' }]);
    const both = (name) => {
      const c = new TableStore.CompositeCondition(TableStore.LogicalOperator.AND);
      c.addSubCondition(new TableStore.SingleColumnCondition('name', name, TableStore.ComparatorType.EQUAL));
      c.addSubCondition(new TableStore.SingleColumnCondition('addr', 'china', TableStore.ComparatorType.EQUAL));
      return new TableStore.Condition(TableStore.RowExistenceExpectation.EXPECT_EXIST, c);
    };
    await update('c', 1, [{ PUT: [{ v: 'x' }] }], { condition: both('john') });
    const err = await fails(update('c', 1, [{ PUT: [{ v: 'y' }] }], { condition: both('jane') }));
    assert.strictEqual(err.code, 403);
    assert.match(err.name + err.message, /OTSConditionCheckFail/);
    assert.strictEqual(await get('c', 1), 'addr=china name=john v=x');
  },
  async 'filters and chooses columns'() {
    const filter = (value) => new TableStore.SingleColumnCondition('name', value, TableStore.ComparatorType.EQUAL);
    assert.strictEqual(await get('c', 1, { columnFilter: filter('john') }), 'addr=china name=john v=x');
    assert.strictEqual(await get('c', 1, { columnFilter: filter('jane') }), '-');
    assert.strictEqual(await get('c', 1, { columnsToGet: ['v'] }), 'v=x');
    assert.strictEqual(await get('c', 1, { startColumn: 'b', endColumn: 'o' }), 'name=john');
  },
  async 'keeps versions'() {
    const now = Date.now();
    for (const i of [0, 1, 2, 3]) {
      await update('v', 1, [{ PUT: [{ v: `${i}`, timestamp: now + i }] }]);
    }
    assert.strictEqual(await get('v', 1, { maxVersions: 9 }), 'v=3 v=2 v=1');
    assert.strictEqual(await get('v', 1, { timeRange: { startTime: `${now + 1}`, endTime: `${now + 3}` }, maxVersions: 9 }), 'v=2 v=1');
  },
  async 'writes and reads batches, row by row'() {
    const row = (type, id, attributeColumns, condition) => ({
      type, condition: condition || ignore, primaryKey: key('batch', id), attributeColumns,
      returnContent: { returnType: TableStore.ReturnType.Primarykey },
    });
    const exists = new TableStore.Condition(TableStore.RowExistenceExpectation.EXPECT_EXIST, null);
    const w = await client.batchWriteRow({
      tables: [{
        tableName,
        rows: [row('PUT', 1, [{ v: '1' }]), row('PUT', 2, [{ v: '2' }], exists), row('UPDATE', 3, [{ PUT: [{ v: '3' }] }])],
      }],
    });
    assert.deepStrictEqual(w.tables.map((r) => r.isOk), [true, false, true]);
    assert.strictEqual(w.tables[1].errorCode, 'OTSConditionCheckFail');
    const r = await client.batchGetRow({
      tables: [{ tableName, primaryKey: [key('batch', 1), key('batch', 2), key('batch', 3)], maxVersions: 1 }],
    });
    assert.deepStrictEqual(r.tables[0].map(columns), ['v=1', '-', 'v=3']);
  },
  async 'scans up and down, page by page'() {
    for (const id of [1, 2, 3, 4, 5]) {
      await put('range', id, [{ v: `${id}` }]);
    }
    const scan = async (direction, from, to) => {
      const seen = [];
      let start = key('range', from);
      while (start) {
        const r = await client.getRange({
          tableName, direction, maxVersions: 1, limit: 2, inclusiveStartPrimaryKey: start, exclusiveEndPrimaryKey: key('range', to),
        });
        seen.push(...r.rows.map((row) => row.primaryKey[1].value.toNumber()));
        start = r.nextStartPrimaryKey && r.nextStartPrimaryKey.map((c) => ({ [c.name]: c.value }));
      }
      return seen;
    };
    assert.deepStrictEqual(await scan(TableStore.Direction.FORWARD, TableStore.INF_MIN, TableStore.INF_MAX), [1, 2, 3, 4, 5]);
    assert.deepStrictEqual(await scan(TableStore.Direction.BACKWARD, TableStore.INF_MAX, 2), [5, 4, 3]);
  },
  async 'numbers rows'() {
    await client.createTable({
      tableMeta: { tableName: 'numbered', primaryKey: [{ name: 'pk', type: 'STRING' }, { name: 'id', type: 'INTEGER', option: 'AUTO_INCREMENT' }] },
      reservedThroughput: { capacityUnit: { read: 0, write: 0 } },
      tableOptions: { timeToLive: -1, maxVersions: 1 },
    });
    const r = await put('a', TableStore.PK_AUTO_INCR, [{ v: 'x' }], {
      tableName: 'numbered', returnContent: { returnType: TableStore.ReturnType.Primarykey },
    });
    assert.ok(r.row.primaryKey[1].value.toNumber() > 0);
  },
  async 'reads, makes and drops secondary indexes'() {
    const main = { tableName: 'indexed' };
    await client.createTable({
      tableMeta: {
        ...main, primaryKey: [{ name: 'pk', type: 'STRING' }, { name: 'id', type: 'INTEGER' }],
        definedColumn: [{ name: 'a', type: TableStore.DefinedColumnType.DCT_STRING }, { name: 'n', type: TableStore.DefinedColumnType.DCT_INTEGER }],
      },
      reservedThroughput: { capacityUnit: { read: 0, write: 0 } },
      tableOptions: { timeToLive: -1, maxVersions: 1 },
      indexMetas: [{ name: 'by_a', primaryKey: ['a'], definedColumn: ['n'] }],
    });
    await put('k', 1, [{ a: 'x' }, { n: Long.fromNumber(2) }], main);
    await put('k', 2, [{ a: 'w' }, { n: Long.fromNumber(1) }], main);
    await client.createIndex({
      mainTableName: 'indexed', includeBaseData: true,
      indexMeta: {
        name: 'by_n', primaryKey: ['pk', 'n'], definedColumn: ['a'],
        indexType: TableStore.IndexType.IT_LOCAL_INDEX, indexUpdateMode: TableStore.IndexUpdateMode.IUM_SYNC_INDEX,
      },
    });
    const scan = async (index, ...names) => (await client.getRange({
      tableName: index, direction: TableStore.Direction.FORWARD, maxVersions: 1, limit: 10,
      inclusiveStartPrimaryKey: names.map((name) => ({ [name]: TableStore.INF_MIN })),
      exclusiveEndPrimaryKey: names.map((name) => ({ [name]: TableStore.INF_MAX })),
    })).rows.map((row) => `${row.primaryKey.map((c) => c.value)} ${columns(row)}`);
    assert.deepStrictEqual(await scan('by_a', 'a', 'pk', 'id'), ['w,k,2 n=1', 'x,k,1 n=2']);
    assert.deepStrictEqual(await scan('by_n', 'pk', 'n', 'id'), ['k,1,2 a=w', 'k,2,1 a=x']);
    for (const indexName of ['by_a', 'by_n']) {
      await client.dropIndex({ mainTableName: 'indexed', indexName });
    }
    await client.deleteTable(main);
  },
  async 'commits and aborts local transactions'() {
    // The SDK can't create a table that has them: the test did.
    const ledger = { tableName: 'ledger' };
    const begin = async () => (await client.startLocalTransaction({ ...ledger, primaryKey: [{ pk: 'a' }] })).transactionId;
    let transactionId = await begin();
    await put('a', 1, [{ v: 'x' }], { ...ledger, transactionId });
    await update('a', 2, [{ PUT: [{ v: 'y' }] }], { ...ledger, transactionId });
    assert.strictEqual(await get('a', 1, { ...ledger, transactionId }), 'v=x');
    assert.strictEqual(await get('a', 1, ledger), '-');
    const conflict = await fails(put('a', 3, [{ v: 'z' }], ledger));
    assert.match(conflict.name + conflict.message, /OTSRowOperationConflict/);
    await client.commitTransaction({ transactionId });
    assert.strictEqual(await get('a', 2, ledger), 'v=y');
    transactionId = await begin();
    await client.deleteRow({ ...ledger, condition: ignore, primaryKey: key('a', 1), transactionId });
    // The SDK decodes the empty answer of an abort as a request, and fails.
    await client.abortTransaction({ transactionId }).catch(() => {});
    assert.strictEqual(await get('a', 1, ledger), 'v=x');
    const gone = await fails(client.commitTransaction({ transactionId }));
    assert.match(gone.name + gone.message, /OTSSessionNotExist/);
  },
  async 'lists search indexes, of which there is none'() {
    assert.deepStrictEqual((await client.listSearchIndex({ tableName })).indices, []);
  },
  async 'is told of errors by name'() {
    const missing = await fails(client.getRow({ tableName: 'nowhere', primaryKey: key('a', 1), maxVersions: 1 }));
    assert.match(missing.name + missing.message, /OTSObjectNotExist/);
    const unsupported = await fails(client.sqlQuery({ query: 'select 1' }));
    assert.match(unsupported.name + unsupported.message, /OTSUnsupportOperation/);
    const forged = await fails(connect('wrong').listTable({}));
    assert.match(forged.name + forged.message, /OTSAuthFailed/);
  },
  async 'deletes a table'() {
    await client.deleteTable({ tableName });
    assert.deepStrictEqual((await client.listTable({})).tableNames, ['ledger', 'numbered']);
  },
};

(async () => {
  const names = Object.keys(steps);
  console.log(`1..${names.length}`);
  let failed = 0;
  for (const [i, name] of names.entries()) {
    try {
      await steps[name]();
      console.log(`ok ${i + 1} - ${name}`);
    } catch (err) {
      failed++;
      console.log(`not ok ${i + 1} - ${name}`);
      console.log(`# ${String(err.stack || err.message || err).replace(/\n/g, '\n# ')}`);
    }
  }
  process.exit(failed ? 1 : 0);
})();
