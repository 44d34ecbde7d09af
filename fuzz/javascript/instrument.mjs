// Makes JavaScript count its branches: each function, block of a branch, side of a conditional and right side of a logical
// expression adds to a byte of `globalThis.__fuzzCounters`, which libFuzzer reads.
import ts from 'typescript';

/** The source of an ECMAScript module with counters from `first` on; `count` is how many it has. */
export function instrument(source, first) {
  let next = first;
  const file = ts.createSourceFile('module.js', source, ts.ScriptTarget.ES2022, true, ts.ScriptKind.JS);
  const { factory } = ts;
  const count = () =>
    factory.createPostfixIncrement(
      factory.createElementAccessExpression(factory.createIdentifier('__fuzzCounters'), next++),
    );
  const counted = (expression) =>
    factory.createParenthesizedExpression(factory.createComma(count(), expression));
  const block = (statement) =>
    factory.createBlock(
      [
        factory.createExpressionStatement(count()),
        ...(ts.isBlock(statement) ? statement.statements : [statement]),
      ],
      true,
    );
  const LOGICAL = new Set([
    ts.SyntaxKind.AmpersandAmpersandToken,
    ts.SyntaxKind.BarBarToken,
    ts.SyntaxKind.QuestionQuestionToken,
  ]);
  const { transformed } = ts.transform(file, [
    (context) => (root) => {
      const visit = (before) => {
        const node = ts.visitEachChild(before, visit, context);
        if (ts.isIfStatement(node)) {
          const otherwise = node.elseStatement === undefined ? factory.createBlock([]) : node.elseStatement;
          return factory.updateIfStatement(
            node,
            node.expression,
            block(node.thenStatement),
            block(otherwise),
          );
        }
        if (ts.isConditionalExpression(node)) {
          return factory.updateConditionalExpression(
            node,
            node.condition,
            node.questionToken,
            counted(node.whenTrue),
            node.colonToken,
            counted(node.whenFalse),
          );
        }
        if (ts.isBinaryExpression(node) && LOGICAL.has(node.operatorToken.kind)) {
          return factory.updateBinaryExpression(node, node.left, node.operatorToken, counted(node.right));
        }
        if (ts.isCaseClause(node) || ts.isDefaultClause(node)) {
          const statements = [factory.createExpressionStatement(count()), ...node.statements];
          return ts.isCaseClause(node)
            ? factory.updateCaseClause(node, node.expression, statements)
            : factory.updateDefaultClause(node, statements);
        }
        if (ts.isForStatement(node)) {
          const { initializer, condition, incrementor, statement } = node;
          return factory.updateForStatement(node, initializer, condition, incrementor, block(statement));
        }
        if (ts.isForOfStatement(node)) {
          return factory.updateForOfStatement(
            node,
            node.awaitModifier,
            node.initializer,
            node.expression,
            block(node.statement),
          );
        }
        if (ts.isWhileStatement(node)) {
          return factory.updateWhileStatement(node, node.expression, block(node.statement));
        }
        return node;
      };
      return ts.visitNode(root, visit);
    },
  ]);
  return { source: ts.createPrinter().printFile(transformed[0]), count: next - first };
}
